"""Ray Serve's router of requests to replicas, by the adapters that they hold: `replicas.routing: adapters`."""

from __future__ import annotations

import time
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from raytrain.serving.backend import Ask, ClassifyAsk
from raytrain.serving.spreading import Seen, Sent, rank_replicas

TOLD_EVERY_S = 1.0
"""How often a replica tells what it holds."""

_REMEMBERED_S = 5 * TOLD_EVERY_S


class AdapterRouter(RequestRouter):  # type: ignore[misc]
    """Of one handle, for its event loop. What replicas tell: `ReplicaProcess.record_routing_stats`."""

    def initialize_state(self, spread_at: int) -> None:
        """Called by Ray Serve, with `request_router_kwargs`."""
        self._spread_at, self._turn = spread_at, 0
        self._sent = Sent(_REMEMBERED_S)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        by_id = {one.replica_id.unique_id: one for one in candidate_replicas}
        model = _model_of(pending_request)
        seen = [
            Seen(name, self._load(one), model is not None and self._holds(name, one, model))
            for name, one in by_id.items()
        ]
        self._turn += 1
        ranks = rank_replicas(seen, self._spread_at, self._turn, wants_adapter=model is not None)
        if pending_request is not None:
            # All have been named: before they are asked again, Ray Serve waits.
            pending_request.routing_context.should_backoff = True
        return [[by_id[name] for name in rank] for rank in ranks if rank]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:  # noqa: ARG002
        model = _model_of(pending_request)
        if model is not None:
            self._sent.note(replica_id.unique_id, model, time.monotonic())

    def _holds(self, name: str, replica: RunningReplica, model: str) -> bool:
        told = replica.routing_stats.get("models", ())
        return model in told or self._sent.has(name, model, time.monotonic())

    def _load(self, replica: RunningReplica) -> int:
        known = self.replica_queue_len_cache.get(replica.replica_id)
        return int(replica.routing_stats.get("load", 0) if known is None else known)


def _model_of(request: PendingRequest | None) -> str | None:
    ask = request.args[0] if request is not None and request.args else None
    return ask.model if isinstance(ask, Ask | ClassifyAsk) else None

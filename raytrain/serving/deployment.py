"""The Ray Serve application: an ingress that speaks HTTP, and replicas that answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from raytrain.errors import PlatformError
from raytrain.serving.backend import Ask, Classified, ClassifyAsk, ModelCard, Readiness, Served
from raytrain.serving.engine.request import Piece
from raytrain.serving.operations.protocol import Loaded, ReplicaState, Target, Unloaded
from raytrain.serving.operations.remote import RemoteOperations
from raytrain.serving.operations.wanted import Wanted
from raytrain.serving.remote import REFUSALS, Refusal, RemoteBackend
from raytrain.serving.section import REPLICA, ServingSection

_BESIDE_ANSWERS = 16
"""Calls that a replica takes beside those that it answers or queues: readiness, models."""

_MOST_CONNECTIONS = 1024
"""That an ingress holds at a time, most of which wait for an answer."""

_ONE_LOOP = {
    "env_vars": {
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    }
}
"""Ray Serve gives what it calls, and its router, an event loop each, in threads of their own: code that blocks should
not keep it from asking whether a process is well. Once it answers nothing here blocks, and each piece of an answer
would change threads twice in either process, waiting for the interpreter that the engine's thread has. That costs
4 ms of a request."""


class ReplicaProcess:
    """One replica, in a process of its own."""

    def __init__(self, section: dict[str, Any]) -> None:
        from raytrain.serving.operations.replica import OperatedReplica
        from raytrain.serving.replica import Replica

        name = serve.get_replica_context().replica_id.unique_id
        self._replica = Replica(ServingSection.model_validate(section), name)
        self._operated = OperatedReplica(self._replica)

    async def generate(self, ask: Ask) -> AsyncIterator[Served | Piece | Refusal]:
        try:
            async with aclosing(self._replica.generate(ask)) as answer:
                async for one in answer:
                    yield one
        except REFUSALS as error:
            yield Refusal(error)

    async def answer(self, ask: Ask) -> tuple[Served | Piece, ...] | Refusal:
        """What `generate` yields, at once: each thing that crosses on its way costs both processes a millisecond."""
        try:
            async with aclosing(self._replica.generate(ask)) as answer:
                return tuple([one async for one in answer])
        except REFUSALS as error:
            return Refusal(error)

    async def classify(self, ask: ClassifyAsk) -> Classified | Refusal:
        try:
            return await self._replica.classify(ask)
        except REFUSALS as error:
            return Refusal(error)

    async def models(self) -> list[ModelCard]:
        return await self._replica.models()

    async def readiness(self) -> Readiness:
        return await self._replica.readiness()

    async def exchange(self, wanted: Wanted) -> Wanted:
        return await self._operated.exchange(wanted)

    async def standing(self) -> ReplicaState:
        return await self._operated.standing()

    async def find(self, reference: str) -> Target | Refusal:
        try:
            return await self._operated.find(reference)
        except PlatformError as error:
            return Refusal(error)

    async def load(self, wanted: Wanted, target: Target) -> Loaded:
        return await self._operated.load(wanted, target)

    async def unload(self, wanted: Wanted, target: Target) -> Unloaded:
        return await self._operated.unload(wanted, target)

    async def record_routing_stats(self) -> dict[str, Any]:
        """Ray Serve asks for it every second and tells it to routers: see adapter_router.py."""
        stats = self._replica.engine.stats()
        return {"load": stats.running + stats.waiting, "models": self._replica.warm_models()}

    def check_health(self) -> None:
        """Ray Serve puts another in its place where this raises."""
        if not self._replica.is_alive:
            raise RuntimeError("an engine has ended")

    def __del__(self) -> None:
        if hasattr(self, "_replica"):
            self._replica.close()


class Ingress:
    """HTTP; it holds no model."""

    def __init__(self, replicas: Any, section: dict[str, Any]) -> None:
        self._backend = RemoteBackend(replicas)
        self._operations = RemoteOperations(replicas)
        self._section = ServingSection.model_validate(section)

    def __serve_build_asgi_app__(self) -> Any:
        from raytrain.serving.http.app import build_app

        return build_app(
            self._backend, self._section.http, self._operations, self._section.trials, is_behind_ray=True
        )


def _routing(section: ServingSection) -> dict[str, Any]:
    """None of its own where Ray Serve's is wanted: the less busy of two."""
    if section.replicas.routing == "load":
        return {}
    from raytrain.serving.adapter_router import TOLD_EVERY_S, AdapterRouter

    config = RequestRouterConfig(
        request_router_class=f"{AdapterRouter.__module__}.{AdapterRouter.__name__}",
        request_router_kwargs={"spread_at": section.replicas.spread_at},
        request_routing_stats_period_s=TOLD_EVERY_S,
    )
    return {"request_router_config": config}


def build_application(args: dict[str, Any]) -> serve.Application:
    """What `import_path` of a Serve config names. args: a ServingSection's keys."""
    section = ServingSection.model_validate(args)
    told = section.model_dump(mode="json")
    engine = section.engine
    most = engine.max_rows + engine.max_waiting + section.classification.max_waiting + _BESIDE_ANSWERS
    replicas = serve.deployment(
        ReplicaProcess,
        name=REPLICA,
        max_ongoing_requests=most,
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=section.http.answer_time_s,
        max_surge_percent=section.replicas.surge_percent,
        ray_actor_options={
            "num_cpus": section.replicas.cpus_per_replica,
            "num_gpus": section.replicas.gpus_per_replica,
            "runtime_env": _ONE_LOOP,
        },
        **_routing(section),
        **section.replicas.scaling,
    )
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="ingress",
        num_replicas=section.http.num_ingresses,
        max_ongoing_requests=_MOST_CONNECTIONS,
        graceful_shutdown_timeout_s=section.http.answer_time_s + section.http.stall_time_s,
        max_surge_percent=100,  # it takes no room that anybody counts
        ray_actor_options={"num_cpus": 0, "runtime_env": _ONE_LOOP},
    )
    return ingress.bind(replicas.bind(told), told)

"""A replica as operators know it: what is asked of all replicas together, each does by itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from raytrain.serving.operations.protocol import Loaded, ReplicaState, Target, Unloaded
from raytrain.serving.operations.wanted import Wanted
from raytrain.serving.replica import Replica


class OperatedReplica:
    """What may take long goes on beside the answering."""

    def __init__(self, replica: Replica) -> None:
        self._replica, self._wishes = replica, replica.wishes

    async def exchange(self, wanted: Wanted) -> Wanted:
        """Take over what is wanted, and tell what was known here."""
        return self._wishes.exchange(wanted)  # locks and dicts only

    async def standing(self) -> ReplicaState:
        replica, wishes = self._replica, self._wishes
        return ReplicaState(replica.name, wishes.wanted.is_draining, replica.answering, wishes.kept)

    async def find(self, reference: str) -> Target:
        """What a reference names now. Raises NotRegisteredError or StorageError."""
        found = await asyncio.to_thread(self._wishes.find, reference)
        production = self._replica.routes.table.production.items()
        names = [name for name, one in production if one.digest == found.digest]
        return replace(found, production_of=tuple(names))

    async def load(self, wanted: Wanted, target: Target) -> Loaded:
        return await asyncio.to_thread(self._wishes.load, wanted, target)

    async def unload(self, wanted: Wanted, target: Target) -> Unloaded:
        return await asyncio.to_thread(self._wishes.unload, wanted, target)

"""All replicas behind Ray Serve, as an operator asks them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from raytrain.errors import IntegrityError, PlatformError, RefusedError, StorageError
from raytrain.serving.backend import ReplicaLost
from raytrain.serving.operations.protocol import InProduction, Loaded, ReplicaState, Target, Unloaded
from raytrain.serving.operations.wanted import Wanted
from raytrain.serving.remote import Refusal

_log = logging.getLogger(__name__)
_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 600.0
"""For reading a version from an object store."""
_FOLLOW_S = 2.0
"""So soon a replica that starts later knows what is wanted."""


class RemoteOperations:
    """`Operations` for the event loop of an ingress, of which there may be several."""

    def __init__(self, handle: Any) -> None:
        """handle: of the deployment of `ReplicaProcess`."""
        self._handle, self._wanted = handle, Wanted()

    async def load(self, reference: str, *, keep: bool = True) -> tuple[Target, list[Loaded]]:
        """See `Operations`."""
        target = await self._find(reference)
        await self._exchange()
        is_new = keep and target.model not in self._wanted.loaded
        if is_new:
            self._wanted = self._wanted.loading(target.model, is_on=True)
        found: list[Loaded] = await self._all("load", self._wanted, target, timeout_s=_LOAD_TIMEOUT_S)
        if any(one.fault is not None for one in found):
            if is_new:
                self._wanted = self._wanted.loading(target.model, is_on=False)
                await self._exchange()
            raise _not_everywhere(target, found)
        return target, found

    async def unload(self, reference: str) -> tuple[Target, list[Unloaded]]:
        """See `Operations`."""
        target = await self._find(reference)
        if target.production_of:
            raise InProduction(
                f"{target.model} stays loaded",
                why=f"it is what {' and '.join(target.production_of)} is answered with",
                fix="let another version be in production first: raytrain promote, or raytrain rollback",
            )
        await self._exchange()
        self._wanted = self._wanted.loading(target.model, is_on=False)
        return target, await self._all("unload", self._wanted, target)

    async def drain(self, *, is_on: bool) -> list[ReplicaState]:
        """See `Operations`."""
        with suppress(TimeoutError, ReplicaLost):  # one that hangs keeps nobody from being told
            await self._exchange()
        self._wanted = self._wanted.draining(is_on=is_on)
        await self._exchange()
        return await self.standing()

    async def standing(self) -> list[ReplicaState]:
        """See `Operations`."""
        found: list[ReplicaState] = await self._all("standing")
        return sorted(found, key=lambda one: one.replica)

    async def follow(self) -> None:
        """See `Operations`."""
        while True:
            try:
                await self._exchange()
            except Exception as error:  # noqa: BLE001 - there may be no replica yet, or none for a while
                _log.debug("no replica was told what is wanted: %s", type(error).__name__)
            await asyncio.sleep(_FOLLOW_S)

    async def _exchange(self) -> None:
        told: list[Wanted] = await self._all("exchange", self._wanted)
        for one in told:
            self._wanted = self._wanted.merged(one)

    async def _find(self, reference: str) -> Target:
        from ray.exceptions import RayError

        try:
            async with asyncio.timeout(_TIMEOUT_S):
                found: Target | Refusal = await self._handle.find.remote(reference)
        except RayError as error:
            raise ReplicaLost("find") from error
        if isinstance(found, Refusal):
            raise found.error
        return found

    async def _all(self, method: str, *args: Any, timeout_s: float = _TIMEOUT_S) -> list[Any]:
        """What those told that live. Raises ReplicaLost where none does."""
        from ray.exceptions import RayError

        answer = self._handle.broadcast(method, *args)
        found = await answer.results_async(timeout_s=timeout_s, return_exceptions=True)
        # Who has died meanwhile is replaced, and the other one learns what is wanted as it starts.
        living = [one for one in found if not isinstance(one, RayError)]
        for one in living:
            if isinstance(one, BaseException):
                raise one
        if not living:
            raise ReplicaLost(method)
        return living


def _not_everywhere(target: Target, found: Sequence[Loaded]) -> PlatformError:
    """The first replica's fault, and how many have one."""
    failed = [(one.replica, one.fault) for one in found if one.fault is not None]
    replica, fault = failed[0]
    kind = StorageError if isinstance(fault, StorageError) else type(fault)
    if not issubclass(kind, (StorageError, IntegrityError, RefusedError)):
        kind = RefusedError
    return kind(
        f"{target.model} is kept loaded nowhere",
        why=f"{len(failed)} of {len(found)} replicas could not load it; {replica}: {fault.line}",
        fix=fault.fix,
    )

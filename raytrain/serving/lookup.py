"""Which version a request's model names."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from raytrain.errors import ConfigError, NotRegisteredError, PlatformError, StorageError
from raytrain.release.registry.state import PRODUCTION
from raytrain.serving.adapters.opening import Servable
from raytrain.serving.backend import RefusedModel, Undecided
from raytrain.serving.routes import Routes

_NUM_LOOKUPS = 4
_LOOKUP_S = 5.0
"""For so long whoever asks for a version by its number waits for the registry."""

_START_WITHIN_S = 20.0
"""A registry that cannot be read is tried for so long at the start."""

_ASKED_EVERY_S = 0.5


class NotServed(Exception):
    """Nothing has this name."""


class Lookup:
    """Over the routes of one replica."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        # Of their own: a registry that hangs would keep threads that read adapters.
        self._threads = ThreadPoolExecutor(_NUM_LOOKUPS, "lookup")

    async def find(self, model: str) -> Servable:
        """By NAME, NAME@ALIAS or NAME@VERSION.

        Raises NotServed, RefusedModel, Undecided.
        """
        table = self._routes.table
        reference = model if "@" in model else f"{model}@{PRODUCTION}"
        found = table.aliases.get(reference)
        if found is not None:
            return found
        if reference in table.refused:
            raise Undecided(model) if table.undecided(reference) else RefusedModel(model)
        name, _, wanted = reference.partition("@")
        served = {one.partition("@")[0] for one in table.aliases}
        if name not in served or not wanted[:1].isdigit():
            raise NotServed(model)
        return await self._version(reference)

    def close(self) -> None:
        """Questions that hang are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _version(self, reference: str) -> Servable:
        """By its number."""
        for one in self._routes.table.aliases.values():
            if f"{one.name}@{one.version}" == reference:
                return one
        found = asyncio.get_running_loop().run_in_executor(self._threads, self._routes.version, reference)
        try:
            return await asyncio.wait_for(found, _LOOKUP_S)
        except (StorageError, TimeoutError) as error:
            raise Undecided(reference) from error
        except PlatformError as error:
            if isinstance(error, ConfigError | NotRegisteredError):
                raise NotServed(reference) from error
            raise RefusedModel(reference) from error


def await_registry(routes: Routes) -> None:
    """Raises StorageError where the registry, or what is in production, cannot be read for a while."""
    deadline = time.monotonic() + _START_WITHIN_S
    routes.refresh()
    while (complaint := _complaint_of(routes)) is not None:
        if time.monotonic() > deadline:
            raise StorageError(
                "the registry cannot be read, so nobody knows what is to be served",
                why=complaint,
                fix="see that the registry is there; a replica that is started anew needs it",
            )
        time.sleep(_ASKED_EVERY_S)
        routes.refresh()


def _complaint_of(routes: Routes) -> str | None:
    table = routes.table
    unread = [one for one in table.unread - table.aliases.keys() if one.endswith(f"@{PRODUCTION}")]
    return routes.complaint or next((f"{one}: {table.refused[one]}" for one in sorted(unread)), None)

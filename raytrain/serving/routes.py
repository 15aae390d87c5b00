"""Which version answers to which name: what the registry says, followed while it changes.

A route is exchanged once the new version can answer, so that no request waits for it or meets nothing; what may not be
served leaves the old one in its place. Requests look a route up once and keep its digest to their end.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from raytrain.errors import PlatformError, StorageError
from raytrain.release.registry.following import Following
from raytrain.release.registry.state import PREVIOUS, PRODUCTION
from raytrain.serving.adapters.opening import Admitted, Door, OtherBaseError
from raytrain.serving.adapters.residents import Residents

_log = logging.getLogger(__name__)
_VERSION_COUNTS_S = 5.0
"""For so long a version that was withdrawn may still answer who asks for it by its number."""

_MOST_VERSIONS = 256
"""That are remembered."""


@dataclass(frozen=True)
class Table:
    """All routes at one moment."""

    aliases: dict[str, Admitted] = field(default_factory=dict)
    """By `name@alias`."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why what an alias names now is not served."""
    complaint: str | None = None
    """Why the registry could not be asked."""

    @property
    def production(self) -> dict[str, Admitted]:
        """By name."""
        ending = f"@{PRODUCTION}"
        return {key.removesuffix(ending): one for key, one in self.aliases.items() if key.endswith(ending)}


class Routes:
    """Of one replica. `table` may be read at any time from any thread; one thread refreshes."""

    def __init__(self, door: Door, residents: Residents, names: list[str] | None) -> None:
        self.table = Table()
        self._door, self._residents, self._names = door, residents, names
        self._following = Following(door.registry)
        self._seen: dict[str, str] = {}  # the version of each alias when it was last looked at
        self._ring: tuple[object, ...] = ()
        self._versions: dict[str, tuple[Admitted, float]] = {}
        self._stopping = threading.Event()
        self.alarms = 0
        """Versions that were refused, and times at which the registry could be read no more."""

    def version(self, reference: str) -> Admitted:
        """By NAME@VERSION, whatever aliases say. What was verified counts for some seconds, unless keys change.

        Raises as `Door.admit`; reads files.
        """
        admitted, until = self._versions.get(reference, (None, 0.0))
        if admitted is None or time.monotonic() > until:
            admitted = self._door.admit(reference)
            if len(self._versions) >= _MOST_VERSIONS:
                self._versions.clear()
            self._versions[reference] = (admitted, time.monotonic() + _VERSION_COUNTS_S)
        return admitted

    def refresh(self) -> None:
        """Ask the registry once; never raises PlatformError."""
        try:
            wanted, ring = self._wanted(), tuple(self._door.ring.known())
        except (PlatformError, OSError) as error:
            self._complain(error)
            return
        if ring != self._ring:
            self._seen.clear()  # a key may have been revoked, or trusted
            self._versions.clear()
            self._ring = ring
        aliases, refused = dict(self.table.aliases), dict(self.table.refused)
        for gone in (aliases.keys() | refused.keys()) - wanted.keys():
            aliases.pop(gone, None)
            refused.pop(gone, None)
            self._seen.pop(gone, None)
        for reference, version in wanted.items():
            if self._seen.get(reference) == version:
                continue
            found = self._admitted(reference, version, aliases.get(reference))
            if isinstance(found, Admitted):
                aliases[reference] = found
                refused.pop(reference, None)
            elif found is None:
                aliases.pop(reference, None)
                refused.pop(reference, None)
            else:
                refused[reference] = found
                if reference in aliases and aliases[reference].version == version:
                    del aliases[reference]  # it was good until now: a key was revoked, or a file has changed
            self._show(Table(dict(aliases), dict(refused)))
        self._show(Table(aliases, refused))

    def _wanted(self) -> dict[str, str]:
        """The version of each alias, by `name@alias`; production first, as it is pinned."""
        found = {
            f"{name}@{alias}": str(version)
            for name, state in self._following.states(self._names).items()
            for alias, version in state.aliases.items()
        }
        return dict(sorted(found.items(), key=lambda one: not one[0].endswith(f"@{PRODUCTION}")))

    def _admitted(self, reference: str, version: str, before: Admitted | None) -> Admitted | str | None:
        """What is to answer; why it may not; None where it is nothing for this base model."""
        try:
            admitted = self._door.admit(reference)
            if reference.endswith((f"@{PRODUCTION}", f"@{PREVIOUS}")):
                is_pinned = reference.endswith(f"@{PRODUCTION}")
                self._residents.load(admitted.digest, admitted.read, is_pinned=is_pinned)
        except OtherBaseError as error:
            self._seen[reference] = version
            return None if self._names is None and before is None else self._refuse(reference, error, before)
        except StorageError as error:
            return self._refuse(reference, error, before)  # and is tried again
        except PlatformError as error:
            self._seen[reference] = version
            return self._refuse(reference, error, before)
        self._seen[reference] = version
        return admitted

    def _refuse(self, reference: str, error: PlatformError, before: Admitted | None) -> str:
        why = f"{error.what}: {error.why}"
        if self.table.refused.get(reference) != why:  # what could not be read is tried at each look
            self.alarms += 1
            _log.error("ALARM %s is not served: %s; %s", reference, why, _instead(before))
        return why

    def _show(self, table: Table) -> None:
        self.table = table
        self._residents.pin({one.digest for one in table.production.values()})

    def _complain(self, error: Exception) -> None:
        told = f"{error.what}: {error.why}" if isinstance(error, PlatformError) else str(error)
        if self.table.complaint is None:
            self.alarms += 1
            _log.error("ALARM the registry cannot be read, what was served is served on: %s", told)
        self.table = Table(self.table.aliases, self.table.refused, told)

    def follow(self, poll_s: float) -> None:
        """Refresh until `stop`; in a thread of its own."""
        while not self._stopping.wait(poll_s):
            self.refresh()

    def stop(self) -> None:
        self._stopping.set()


def _instead(before: Admitted | None) -> str:
    return "nothing answers in its place" if before is None else f"{before.name}@{before.version} goes on"

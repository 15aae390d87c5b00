"""Which version answers to which name: what the registry says, followed while it changes.

A route is exchanged once the new version can answer, so that no request waits for it or meets nothing; what may not be
served leaves the old one in its place. Requests look a route up once and keep its digest to their end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from raytrain.errors import PlatformError, StorageError
from raytrain.release.registry.following import Following
from raytrain.release.registry.state import PREVIOUS, PRODUCTION
from raytrain.serving.adapters.bank import NoRoomError
from raytrain.serving.adapters.opening import Admitted, Door, OtherBaseError
from raytrain.serving.adapters.residents import Residents

_log = logging.getLogger(__name__)
_VERSION_COUNTS_S = 5.0
"""For so long a version that was withdrawn may still answer who asks for it by its number."""

_MOST_VERSIONS = 256
"""That are remembered."""

_SILENT_AFTER_S = 3.0
"""A registry that has said nothing for so long is as good as one that cannot be read."""


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
        self._known: set[str] = set()  # names: a journal never ends, so who has one keeps it
        self._asked_at: float | None = None
        self._stopping = threading.Event()
        self.alarms = 0
        """Versions that were refused, and times at which the registry could be read no more."""

    @property
    def complaint(self) -> str | None:
        """Why the registry cannot be asked; also while a question to it hangs."""
        asked_at, told = self._asked_at, self.table.complaint
        silent_s = 0.0 if asked_at is None else time.monotonic() - asked_at
        if told is None and silent_s > _SILENT_AFTER_S:
            return f"it has not answered for {silent_s:.0f} s"
        return told

    def version(self, reference: str) -> Admitted:
        """By NAME@VERSION, whatever aliases say. What was verified counts for some seconds, unless keys change; while
        the registry cannot be asked it counts on.

        Raises as `Door.admit`, StorageError at once where it is known that the registry does not answer; reads files.
        """
        admitted, until = self._versions.get(reference, (None, 0.0))
        if admitted is not None and time.monotonic() <= until:
            return admitted
        complaint = self.complaint
        if complaint is None:
            admitted = self._door.admit(reference)
            if len(self._versions) >= _MOST_VERSIONS:
                self._versions.clear()
            self._versions[reference] = (admitted, time.monotonic() + _VERSION_COUNTS_S)
        if admitted is None:
            raise StorageError(
                f"nobody can say whether {reference} may answer",
                why=f"the registry cannot be asked: {complaint}",
                fix="ask again when it can",
            )
        return admitted

    def undecided(self, reference: str) -> bool:
        """Whether it is refused for a reason that may pass, and nothing answers in its place."""
        table = self.table
        return reference in table.refused and reference not in table.aliases and reference not in self._seen

    def refresh(self) -> None:
        """Ask the registry once; never raises."""
        try:
            self._heed_keys()
            with self._asking():
                wanted = self._wanted()
        except Exception as error:  # noqa: BLE001 - whatever it is: the thread that follows the registry goes on
            self._complain(error)
            return
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
                is_decided = self._seen.get(reference) == version  # by what was read, and not for want of it
                if is_decided and reference in aliases and aliases[reference].version == version:
                    del aliases[reference]  # it was good until now: a key was revoked, or a file has changed
            self._show(Table(dict(aliases), dict(refused)))
        self._show(Table(aliases, refused))

    def _heed_keys(self) -> None:
        ring = tuple(self._door.ring.known())
        if ring != self._ring:
            self._seen.clear()  # a key may have been revoked, or trusted
            self._versions.clear()
            self._ring = ring

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._asked_at = time.monotonic()
        try:
            yield
        finally:
            self._asked_at = None

    def _wanted(self) -> dict[str, str]:
        """The version of each alias, by `name@alias`; production first, as it is pinned."""
        states = self._following.states(self._names)
        missing = sorted(self._known - states.keys())
        if missing:
            raise StorageError(
                f"the registry {self._door.registry.place} has lost {', '.join(missing)}",
                why="a name that was ever registered stays",
                fix="see that its folder or bucket is there, mounted, and the one that it was",
            )
        self._known.update(states)
        found = {
            f"{name}@{alias}": str(version)
            for name, state in states.items()
            for alias, version in state.aliases.items()
        }
        return dict(sorted(found.items(), key=lambda one: not one[0].endswith(f"@{PRODUCTION}")))

    def _admitted(self, reference: str, version: str, before: Admitted | None) -> Admitted | str | None:
        """What is to answer; why it may not; None where it is nothing for this base model."""
        try:
            with self._asking():
                admitted = self._door.admit(reference)
            if reference.endswith((f"@{PRODUCTION}", f"@{PREVIOUS}")):
                is_pinned = reference.endswith(f"@{PRODUCTION}")
                self._residents.load(admitted.digest, admitted.read, is_pinned=is_pinned)
        except OtherBaseError as error:
            self._seen[reference] = version
            return None if self._names is None and before is None else self._refuse(reference, error, before)
        except (StorageError, OSError, NoRoomError) as error:
            return self._refuse(reference, error, before)  # and is tried again: room comes back as well
        except Exception as error:  # noqa: BLE001 - files that nobody expected: others are followed all the same
            self._seen[reference] = version
            return self._refuse(reference, error, before)
        self._seen[reference] = version
        return admitted

    def _refuse(self, reference: str, error: Exception, before: Admitted | None) -> str:
        why = _words_of(error)
        if self.table.refused.get(reference) != why:  # what could not be read is tried at each look
            self.alarms += 1
            _log.error("ALARM %s is not served: %s; %s", reference, why, _instead(before))
        return why

    def _show(self, table: Table) -> None:
        self.table = table
        self._residents.pin({one.digest for one in table.production.values()})

    def _complain(self, error: Exception) -> None:
        told = _words_of(error)
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


def _words_of(error: Exception) -> str:
    if isinstance(error, PlatformError):
        return f"{error.what}: {error.why}"
    return f"{type(error).__name__}: {error}"


def _instead(before: Admitted | None) -> str:
    return "nothing answers in its place" if before is None else f"{before.name}@{before.version} goes on"

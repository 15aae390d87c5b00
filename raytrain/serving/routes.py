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
from dataclasses import replace

from raytrain.errors import StorageError, line_of
from raytrain.release.registry.following import Following
from raytrain.release.registry.state import PREVIOUS, PRODUCTION
from raytrain.serving.adapters.bank import NoRoomError
from raytrain.serving.adapters.opening import Door, OtherBaseError, Servable
from raytrain.serving.adapters.residents import Residents
from raytrain.serving.table import Table

_log = logging.getLogger(__name__)
_VERSION_COUNTS_S = 5.0
"""For so long a version that was withdrawn may still answer who asks for it by its number."""

_MOST_VERSIONS = 256
"""That are remembered."""

_SILENT_AFTER_S = 3.0
"""A registry that has said nothing for so long is as good as one that cannot be read."""

_READ_WITHIN_S = 60.0
"""A bundle that is fetched and verified for longer is told. How far it has come nobody knows, and a large one may take
minutes: nothing else follows from it. An object store's own client gives up after 30 s in which nothing came."""

_PRODUCTION = f"@{PRODUCTION}"


class Routes:
    """Of one replica. `table` may be read at any time from any thread.

    One thread asks the registry, a second reads what is in production, a third what other aliases name: whatever takes
    long to be read keeps the registry from no question, and production waits for no other alias.
    """

    def __init__(self, door: Door, residents: Residents, names: list[str] | None) -> None:
        self.table = Table()
        self._door, self._residents, self._names = door, residents, names
        self._following = Following(door.registry)
        self._lock = threading.Lock()  # for who changes the table, or anything of what follows
        self._wanted: dict[str, str] = {}  # the version of each alias, as the registry said last
        self._seen: dict[str, str] = {}  # the version of each alias when it was last looked at
        self._ring: tuple[object, ...] = ()
        self._versions: dict[str, tuple[Servable, float]] = {}
        self._known: set[str] = set()  # names: a journal never ends, so who has one keeps it
        self._asked_at: float | None = None
        self._reading: dict[str, float] = {}  # aliases whose bundle is being read, and since when
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

    @property
    def slow(self) -> dict[str, str]:
        """Aliases whose bundle takes long to be read, and how long."""
        now = time.monotonic()
        return {
            reference: f"its bundle has been read for {now - since:.0f} s, and is not there yet"
            for reference, since in self._reading.copy().items()
            if now - since > _READ_WITHIN_S
        }

    def version(self, reference: str) -> Servable:
        """By NAME@VERSION, whatever aliases say. What was verified counts for some seconds, unless keys change; while
        the registry cannot be asked it counts on.

        Raises as `Door.admit`, StorageError at once where it is known that the registry does not answer; reads files.
        """
        admitted, until = self._versions.get(reference, (None, 0.0))
        if admitted is not None and time.monotonic() <= until:
            return admitted
        complaint = self.complaint
        if complaint is None:
            ring = self._ring
            admitted = self._door.admit(reference)
            with self._lock:
                if self._ring == ring:  # else by keys of which one may have been revoked since
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

    def refresh(self) -> None:
        """Ask the registry once, and read all that it names; never raises."""
        if self._ask():
            for is_production in (True, False):
                for reference in self._unread(is_production):
                    self._look_at(reference)

    def _ask(self) -> bool:
        """What the registry says now; False where it cannot be asked, which is told."""
        try:
            self._heed_keys()
            with self._asking():
                wanted = self._aliases()
        except Exception as error:  # noqa: BLE001 - whatever it is: the thread that follows the registry goes on
            self._complain(error)
            return False
        with self._lock:
            self._wanted = wanted
            for gone in self._seen.keys() - wanted.keys():
                del self._seen[gone]
            self._show(self.table.naming(wanted))
        return True

    def _unread(self, is_production: bool) -> list[str]:
        """Aliases that name another version than when they were last looked at, or one for which there was no room and
        may be now."""
        with self._lock:
            return [
                reference
                for reference, version in self._wanted.items()
                if reference.endswith(_PRODUCTION) == is_production
                and (self._seen.get(reference) != version or self._may_fit(reference))
            ]

    def _may_fit(self, reference: str) -> bool:
        digest, is_production = self.table.crowded.get(reference), reference.endswith(_PRODUCTION)
        return digest is not None and self._residents.may_fit(digest, is_pinned=is_production)

    def _look_at(self, reference: str) -> None:
        """Read what an alias names and show it, unless by then it names another version, or keys have changed."""
        with self._lock:
            version, ring = self._wanted.get(reference), self._ring
        if version is None:
            return
        self._reading[reference] = time.monotonic()
        try:
            found = self._read(reference)
        finally:
            self._reading.pop(reference, None)
        with self._lock:
            if self._ring == ring and self._wanted.get(reference) == version:
                self._decide(reference, version, found)

    def _read(self, reference: str) -> Servable | Exception:
        """What is to answer, or why it may not."""
        is_production = reference.endswith(_PRODUCTION)
        try:
            admitted = self._door.admit(reference)
            if is_production or reference.endswith(f"@{PREVIOUS}"):
                self._residents.load(admitted.digest, admitted.read, is_pinned=is_production)
        except Exception as error:  # noqa: BLE001 - files that nobody expected: others are followed all the same
            return error
        return admitted

    def _decide(self, reference: str, version: str, found: Servable | Exception) -> None:
        """With the lock."""
        before = self.table.aliases.get(reference)
        if not isinstance(found, StorageError | OSError):  # else it is looked at until it can be read
            self._seen[reference] = version
        if isinstance(found, Servable):
            self._show(self.table.admitting(reference, found))
        elif isinstance(found, OtherBaseError) and self._names is None and before is None:
            self._show(self.table.passing_over(reference))
            _log.warning("%s is passed over: %s", reference, found.why)
        else:
            self._tell_refused(reference, found, before)
            # It was good until now: a key was revoked, or a file has changed.
            was_good = before is not None and before.version == version
            may_pass = isinstance(found, StorageError | OSError | NoRoomError)
            self._show(self.table.refusing(reference, found, was_good=was_good and not may_pass))

    def _heed_keys(self) -> None:
        ring = tuple(self._door.ring.known())
        with self._lock:
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

    def _aliases(self) -> dict[str, str]:
        """The version of each alias, by `name@alias`."""
        states = self._following.states(self._names)
        missing = sorted(self._known - states.keys())
        if missing:
            raise StorageError(
                f"the registry {self._door.registry.place} has lost {', '.join(missing)}",
                why="a name that was ever registered stays",
                fix="see that its folder or bucket is there, mounted, and the one that it was",
            )
        self._known.update(states)
        return {
            f"{name}@{alias}": str(version)
            for name, state in states.items()
            for alias, version in state.aliases.items()
        }

    def _tell_refused(self, reference: str, error: Exception, before: Servable | None) -> None:
        why, table = line_of(error), self.table
        still_crowded = isinstance(error, NoRoomError) and table.crowded.get(reference) == error.digest
        if table.refused.get(reference) != why and not still_crowded:  # what may pass is tried again
            self.alarms += 1
            _log.error("ALARM %s is not served: %s; %s", reference, why, _instead(before))

    def _show(self, table: Table) -> None:
        self.table = table
        self._residents.pin({one.digest for one in table.production.values()})

    def _complain(self, error: Exception) -> None:
        told = line_of(error)
        with self._lock:
            if self.table.complaint is None:
                self.alarms += 1
                _log.error("ALARM the registry cannot be read, what was served is served on: %s", told)
            self.table = replace(self.table, complaint=told)

    def follow(self, poll_s: float) -> None:
        """Until `stop`; in a thread of its own, beside which it has two that read."""
        wakes = {is_production: threading.Event() for is_production in (True, False)}
        readers = [
            threading.Thread(target=self._keep_reading, args=one, name="bundles", daemon=True)
            for one in wakes.items()
        ]
        for reader in readers:
            reader.start()
        while not self._stopping.wait(poll_s):
            if self._ask():
                for wake in wakes.values():
                    wake.set()
        for wake in wakes.values():
            wake.set()
        for reader in readers:
            reader.join()

    def stop(self) -> None:
        self._stopping.set()

    def _keep_reading(self, is_production: bool, wake: threading.Event) -> None:
        """Production's, or the others', one after the other, each time that the registry has been asked."""
        while wake.wait() and not self._stopping.is_set():
            wake.clear()
            for reference in self._unread(is_production):
                if not self._stopping.is_set():
                    self._look_at(reference)


def _instead(before: Servable | None) -> str:
    return "nothing answers in its place" if before is None else f"{before.name}@{before.version} goes on"

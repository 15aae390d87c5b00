"""An append-only journal: one file an entry, each of which holds the hash of the one before it.

An entry stands as soon as its file does, whole, under the next number. Of several writers who want the same number the
store lets one have it, so that an entry is also the only moment at which anything changes.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.release.registry.store import Store

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

NO_ENTRY = "0" * 64
"""What the first entry names as the one before it."""


@dataclass(frozen=True)
class Entry:
    """One change."""

    number: int
    """From 1."""
    previous: str
    """SHA-256 of the file of the entry before."""
    time: str
    """UTC, by the clock of who wrote it."""
    who: str
    """User and machine."""
    action: str
    details: dict[str, Any]
    why: str
    token: str = ""
    """Random: a writer to whom nobody answered knows its entry by it."""

    @property
    def written_at(self) -> float:
        """Seconds since 1970. Raises ValueError where `time` is none."""
        moment = datetime.fromisoformat(self.time)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()

    def moves(self, alias: str) -> bool:
        return self.action == "move" and self.details["alias"] == alias


_KINDS = {
    **dict.fromkeys(("previous", "time", "who", "action", "why", "token"), str),
    "number": int,
    "details": dict,
}


class Journal:
    """All that happened to a name in a store."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def read(self, *, fresh: bool = False) -> list[Entry]:
        """All entries. Raises IntegrityError that names the first which is missing, was changed or cannot be read.

        fresh: read them where they lie, from no copy of this machine.
        """
        return chained(self.contents(fresh=fresh), self._place)

    def contents(self, *, fresh: bool = False) -> list[bytes]:
        """As they were written. Raises IntegrityError where one is missing."""
        contents = []
        for number, (stated, content) in enumerate(self._store.entries(self._name, fresh=fresh), 1):
            if stated != number:
                raise broken(self._place(number), "it is missing")
            contents.append(content)
        return contents

    def append(
        self, after: Sequence[Entry], action: str, details: Mapping[str, Any], why: str
    ) -> Entry | None:
        """Write what follows these entries; None where somebody else has by now written that entry."""
        number = len(after) + 1
        previous = content_hash(content_of(after[-1])) if after else NO_ENTRY
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = Entry(number, previous, time, _who(), action, dict(details), why, uuid.uuid4().hex)
        return entry if self._store.create_entry(self._name, number, content_of(entry)) else None

    def _place(self, number: int) -> str:
        return self._store.entry_place(self._name, number)


def chained(contents: Sequence[bytes], place: Callable[[int], str]) -> list[Entry]:
    """Entries that follow from one another. Raises IntegrityError that names the first which does not."""
    entries: list[Entry] = []
    previous = NO_ENTRY
    for number, content in enumerate(contents, 1):
        entry = _parsed(content, place, number)
        if entry.number != number:
            raise broken(place(number), f"it says that it is number {entry.number}")
        if entry.previous != previous:
            raise broken(
                place(number), "it does not follow from the one before it: one of the two was changed"
            )
        entries.append(entry)
        previous = content_hash(content)
    # Of every other entry the one after it says so.
    if entries and content_of(entries[-1]) != contents[-1]:
        raise broken(place(len(entries)), "it is not as raytrain writes it: it was changed")
    return entries


def content_of(entry: Entry) -> bytes:
    """What is written of an entry, one line: the same entry, the same bytes."""
    return _ENCODER.encode(vars(entry)).encode() + b"\n"


def content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parsed(content: bytes, place: Callable[[int], str], number: int) -> Entry:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise broken(place(number), f"it cannot be read: {error}") from error
    if not isinstance(found, dict) or {key: type(one) for key, one in found.items()} != _KINDS:
        raise broken(place(number), f"it is no entry, which has {', '.join(_KINDS)}")
    return Entry(**found)


def broken(place: object, why: str) -> IntegrityError:
    """A journal is not as it was written."""
    return IntegrityError(
        f"the journal is broken at {place}",
        why=why,
        fix="put back a copy of the registry that is whole; find out who wrote there",
    )


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"

"""An append-only journal: one file an entry, each of which holds the hash of the one before it.

An entry stands as soon as its file does, whole, under the next number. Of several writers who want the same number the
file system lets one have it, so that an entry is also the only moment at which anything changes.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.storage.location import Location, sync_folder, translated_errors

NO_ENTRY = "0" * 64
"""What the first entry names as the one before it."""

_STAGED = ".staged-"


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


class Journal:
    """The entries in a folder on a file system of this machine or one that it shares with others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> list[Entry]:
        """All entries. Raises IntegrityError that names the first which is missing, was changed or cannot be read."""
        entries: list[Entry] = []
        previous = NO_ENTRY
        for number, place in enumerate(self._files(), 1):
            if place.name != _name(number):
                raise _broken(self.folder / _name(number), "it is missing")
            content = place.read_bytes()
            entry = _parsed(place, content)
            if entry.number != number:
                raise _broken(place, f"it says that it is number {entry.number}")
            if entry.previous != previous:
                raise _broken(place, "it does not follow from the one before it: one of the two was changed")
            entries.append(entry)
            previous = _hash(content)
        return entries

    def append(self, after: list[Entry], action: str, details: Mapping[str, Any], why: str) -> Entry | None:
        """Write what follows these entries; None where somebody else has by now written that entry."""
        number = len(after) + 1
        last = self.folder / _name(number - 1)
        with translated_errors(Location(str(self.folder)), "write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            previous = _hash(last.read_bytes()) if after else NO_ENTRY
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            entry = Entry(number, previous, time, _who(), action, dict(details), why)
            content = json.dumps(asdict(entry), indent=1, sort_keys=True, ensure_ascii=False).encode()
            staged = self.folder / f"{_STAGED}{os.getpid()}-{uuid.uuid4().hex[:8]}"
            try:
                with staged.open("wb") as stream:
                    stream.write(content + b"\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                # Unlike a rename, a link takes no other file's place: of two who are as far, one is told.
                (self.folder / _name(number)).hardlink_to(staged)
            except FileExistsError:
                return None
            finally:
                staged.unlink(missing_ok=True)
            sync_folder(self.folder)
        return entry

    def strays(self) -> list[Path]:
        """What a writer left that was killed; it means nothing, and may be deleted."""
        return sorted(self.folder.glob(f"{_STAGED}*"))

    def _files(self) -> list[Path]:
        with translated_errors(Location(str(self.folder)), "read"):
            return sorted(self.folder.glob("[0-9]*.json")) if self.folder.is_dir() else []


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parsed(place: Path, content: bytes) -> Entry:
    try:
        return Entry(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise _broken(place, f"it cannot be read: {error}") from error


def _broken(place: Path, why: str) -> IntegrityError:
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

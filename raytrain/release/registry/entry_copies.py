"""Copies of journals on this machine, so that only what is new is fetched. They say nothing by themselves.

Whoever reads one holds its last entry against the original, and every entry against the one before it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from raytrain.storage.home import raytrain_home
from raytrain.storage.location import write_atomically


class EntryCopies:
    """Of one store: one file a name, its entries one after the other under their hash."""

    def __init__(self, place: str, endpoint: str) -> None:
        self._key = hashlib.sha256(f"{place} {endpoint}".encode()).hexdigest()[:32]

    def read(self, name: str) -> list[bytes]:
        """None where there is no copy, or where it is not as it was written."""
        try:
            stated, _, content = self._file(name).read_bytes().partition(b"\n")
        except OSError:
            return []
        if hashlib.sha256(content).hexdigest().encode() != stated:
            return []
        return content.splitlines(keepends=True)

    def write(self, name: str, entries: list[bytes]) -> None:
        """Where every entry is one line; a disk that takes no copy costs time and nothing else."""
        if any(one.count(b"\n") != 1 or not one.endswith(b"\n") for one in entries):
            return
        content = b"".join(entries)
        stated = hashlib.sha256(content).hexdigest().encode()
        file = self._file(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, stated + b"\n" + content)
        except OSError:
            return

    def _file(self, name: str) -> Path:
        return raytrain_home() / "cache" / "registry" / "journals" / self._key / f"{name}.jsonl"

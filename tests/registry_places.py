"""Stores as tests of registries reach behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raytrain.release.registry.store import Store


class Place(Protocol):
    """A store, and what a vandal can do behind its back. It goes to other processes whole."""

    def open(self) -> Store: ...

    def read(self, place: str) -> bytes: ...

    def write(self, place: str, content: bytes | None) -> None:
        """What a person finds at this place is from now on this; None: nothing."""


@dataclass(frozen=True)
class OnDisk:
    """What `Place` asks for of a store in a folder, but for the store."""

    path: Path

    def read(self, place: str) -> bytes:
        return Path(place).read_bytes()

    def write(self, place: str, content: bytes | None) -> None:
        if content is None:
            Path(place).unlink()
        else:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            Path(place).write_bytes(content)

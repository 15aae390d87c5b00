"""What an operator asks of all replicas together, and what each of them tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from raytrain.errors import PlatformError, RefusedError


@dataclass(frozen=True)
class Target:
    """The version that a reference names."""

    model: str
    """As NAME@VERSION."""
    digest: str
    production_of: tuple[str, ...] = ()
    """Names that are answered with it."""


@dataclass(frozen=True)
class Loaded:
    """What became of a version at one replica."""

    replica: str
    was_loaded: bool
    """Before anybody wanted it."""
    verify_s: float = 0.0
    """Signature, the gate's record, files and base model."""
    read_s: float = 0.0
    put_s: float = 0.0
    """Until requests can use it."""
    fault: PlatformError | None = None
    """Why it is not loaded."""


@dataclass(frozen=True)
class Unloaded:
    """What became of it."""

    replica: str
    was_loaded: bool
    is_in_use: bool = False
    """Its memory is freed once those who use it have their answers."""


@dataclass(frozen=True)
class ReplicaState:
    """Of one replica, now."""

    replica: str
    is_draining: bool
    answering: int
    """Requests that it answers, or has in its queue."""
    kept: tuple[str, ...] = ()
    """Versions that were asked to stay loaded, and are."""


class InProduction(RefusedError):
    """What answers to a name is not taken away from it."""


class Operations(Protocol):
    """Of one service."""

    async def load(self, reference: str, *, keep: bool = True) -> tuple[Target, list[Loaded]]:
        """Verify a version and let it answer on every replica, and keep it there. On all, or it is kept on none.
        keep: else it goes when others need the room, as one does that somebody has asked for.

        reference: NAME@VERSION, or NAME@ALIAS for the version that it names now. Raises NotRegisteredError where
        there is none, RefusedError or IntegrityError where it may not be served or there is no room, StorageError where
        the registry cannot be read.
        """
        ...

    async def unload(self, reference: str) -> tuple[Target, list[Unloaded]]:
        """Keep it no longer. Raises InProduction, NotRegisteredError where it is not in the registry."""
        ...

    async def drain(self, *, is_on: bool) -> list[ReplicaState]:
        """Take no new requests, or take them again."""
        ...

    async def standing(self) -> list[ReplicaState]: ...

    async def follow(self) -> None:
        """Bring what is wanted to replicas that start later; until it is cancelled."""
        ...

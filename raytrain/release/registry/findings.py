"""What is found where somebody looks after a registry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written."""

    name: str
    thing: str
    what: str


@dataclass(frozen=True)
class Orphan:
    """Something that takes room and means nothing."""

    name: str
    digest: str | None
    """Of a bundle that no entry names; None: a file that was not finished."""
    place: str

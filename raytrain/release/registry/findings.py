"""What is found where somebody looks after a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from raytrain.errors import IntegrityError


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written."""

    name: str
    thing: str
    what: str


Tell = Callable[[Fault], object]
"""Takes what cannot be looked through, and is passed over therefore."""


@contextmanager
def passed_over(name: str, thing: str, tell: Tell | None) -> Iterator[None]:
    """What is broken in the block is told, or raised where there is nobody to tell."""
    try:
        yield
    except IntegrityError as error:
        if tell is None:
            raise
        tell(Fault(name, thing, error.line))


@dataclass(frozen=True)
class Orphan:
    """Something that takes room and means nothing."""

    name: str
    digest: str | None
    """Of a bundle that no entry names, or of a record that nobody signed; None: a file that was not finished."""
    place: str
    age_s: float
    """Since somebody last wrote there, who may be at it."""

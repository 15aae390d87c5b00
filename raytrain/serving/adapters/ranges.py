"""Where adapters lie in the banks: stretches of ranks, and what a pass multiplies of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_GAP = 64
"""Ranks of others between two windows which it takes less time to multiply by zero than to begin another product."""


@dataclass(frozen=True)
class Window:
    """A stretch of the banks in which a pass has adapters."""

    start: int
    stop: int
    owners: frozenset[int]
    """Numbers of the adapters in it that the pass uses."""


def windows_of(ranges: Mapping[int, tuple[int, int]], gap: int = _GAP) -> list[Window]:
    """The fewest windows over these adapters' ranges, of which none spans more than `gap` unused ranks in one place."""
    found: list[Window] = []
    for number, (start, stop) in sorted(ranges.items(), key=lambda one: one[1]):
        if found and start - found[-1].stop <= gap:
            last = found.pop()
            found.append(Window(last.start, stop, last.owners | {number}))
        else:
            found.append(Window(start, stop, frozenset({number})))
    return found


def first_fit(taken: Sequence[tuple[int, int]], size: int, capacity: int) -> int | None:
    """Where a range of this size begins; None where no gap is large enough."""
    at = 0
    for start, stop in sorted(taken):
        if start - at >= size:
            return at
        at = stop
    return at if capacity - at >= size else None


def first_behind_gap(ranges: Mapping[str, tuple[int, int]]) -> tuple[str, int]:
    """Whose range it is, and where the gap begins; there has to be one."""
    at = 0
    for digest, (start, stop) in sorted(ranges.items(), key=lambda one: one[1]):
        if start > at:
            return digest, at
        at = stop
    raise AssertionError("the ranges lie one behind the other")

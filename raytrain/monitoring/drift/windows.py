"""Which rows are judged together. Pure: each row is in one window, and windows follow each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrain.monitoring.drift.section import WindowSection


@dataclass(frozen=True)
class Window:
    """Rows `first` to before `end` of those that are there. Times are seconds since the epoch."""

    first: int
    end: int
    begins_at: float
    ends_at: float
    """Up to here everything is judged."""


def choose_windows(
    times: NDArray[np.float64], after: float | None, section: WindowSection, now: float
) -> list[Window]:
    """Those that are whole and not judged yet, the oldest first.

    times: of all rows, ascending. after: what is judged ends here; None = at the beginning. Rows at one moment are
    never parted, so that a window by rows may have some more.
    """
    start = 0 if after is None else int(np.searchsorted(times, after, side="right"))
    settled = int(np.searchsorted(times, now - section.settle_s, side="right"))
    if section.rows is not None:
        return _by_rows(times, start, settled, section.rows)
    assert section.hours is not None, "a window has one size"
    return _by_time(times, after, start, now - section.settle_s, section.hours * 3600)


def _by_rows(times: NDArray[np.float64], start: int, settled: int, size: int) -> list[Window]:
    found = []
    while start + size <= settled:
        end = int(np.searchsorted(times, times[start + size - 1], side="right"))
        if end > settled:
            break
        found.append(Window(start, end, float(times[start]), float(times[end - 1])))
        start = end
    return found


def _by_time(
    times: NDArray[np.float64], after: float | None, start: int, until: float, length: float
) -> list[Window]:
    """A time in which no row came is one window, however many such times follow each other."""
    if after is None:
        if not len(times):
            return []
        after = math.nextafter(float(times[0]), -math.inf)
    found = []
    while after + length <= until:
        end = int(np.searchsorted(times, after + length, side="right"))
        ends_at = after + length
        if end == start:
            next_row = float(times[start]) if start < len(times) else until
            ends_at = after + length * max(1, math.floor((min(next_row, until) - after) / length))
        found.append(Window(start, end, after, ends_at))
        start, after = end, ends_at
    return found

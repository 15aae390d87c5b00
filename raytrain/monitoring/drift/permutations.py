"""What distances come to by chance: those of the same rows, dealt out anew.

The rows of the reference and of the window are put together and shuffled, whole rows at a time, so that features keep
hanging together as they do. If nothing has drifted the split that was seen is one of these like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raytrain.monitoring.drift.columns import Binned, Pooled, Summed
from raytrain.monitoring.drift.distances.distance import Distance, Floats, Kind

_AT_ONCE = 64
"""Permutations whose counts are held at a time."""


Deal = tuple[NDArray[np.int64], bool]
"""Rows of one side, the smaller one, and whether that is the window."""


def distances_by_chance(
    pooled: Sequence[Pooled],
    distances: Mapping[Kind, Distance],
    num_window: int,
    *,
    permutations: int,
    seed: int,
) -> Floats:
    """(1 + permutations, features): first as seen, the window being the last rows, then dealt out by chance.

    distances: by the feature's kind.
    """
    table = _Table(pooled)
    generator = np.random.default_rng(seed)
    found = np.empty((1 + permutations, len(pooled)))
    for start in range(0, 1 + permutations, _AT_ONCE):
        size = min(_AT_ONCE, 1 + permutations - start)
        deals = [
            _deal(table.num_rows, num_window, generator, as_seen=start + place == 0) for place in range(size)
        ]
        counts, sums = table.counts_of(deals), table.sums_of(deals)
        for column, one in enumerate(pooled):
            ends = table.places[column]
            if isinstance(one, Binned):
                window, total = counts[:, ends], table.total_counts[ends]
            else:
                window, total = sums[:, ends], table.total_sums[ends]
            apart = _measured(one, distances[one.kind], total - window, window, num_window)
            found[start : start + size, column] = apart
    return found


class _Table:
    """All features side by side: each binned one has bins of its own, each summed one columns of its own."""

    def __init__(self, pooled: Sequence[Pooled]) -> None:
        binned = [one for one in pooled if isinstance(one, Binned)]
        summed = [one for one in pooled if isinstance(one, Summed)]
        self.num_rows = len(binned[0].codes) if binned else len(summed[0].rows)
        self.places = _places(pooled)
        """Of each feature among the bins, or the sums."""
        starts = [
            place.start for one, place in zip(pooled, self.places, strict=True) if isinstance(one, Binned)
        ]
        self._num_bins = sum(one.num_bins + 1 for one in binned)
        self._codes = np.empty((self.num_rows, len(binned)), np.int64)
        for column, (one, start) in enumerate(zip(binned, starts, strict=True)):
            self._codes[:, column] = one.codes + start
        self._rows = np.concatenate(
            [np.zeros((self.num_rows, 0), np.float32), *(one.rows for one in summed)], axis=1
        )
        self._room = np.empty((0, 0), np.int64)
        self.total_counts = np.bincount(self._codes.ravel(), minlength=self._num_bins).astype(np.float64)
        self.total_sums = self._rows.sum(axis=0, dtype=np.float64)

    def counts_of(self, deals: Sequence[Deal]) -> Floats:
        """Of the window's rows, by deal and bin."""
        found = np.zeros((len(deals), self._num_bins))
        for place, (picked, is_window) in enumerate(deals):
            if len(self._room) != len(picked):
                self._room = np.empty((len(picked), self._codes.shape[1]), np.int64)
            # Into memory that is there: asking for it anew takes longer than everything else here.
            np.take(self._codes, picked, axis=0, out=self._room, mode="clip")
            counts = np.bincount(self._room.ravel(), minlength=self._num_bins)
            found[place] = counts if is_window else self.total_counts - counts
        return found

    def sums_of(self, deals: Sequence[Deal]) -> Floats:
        """Of the window's rows, by deal and column."""
        if not self._rows.shape[1]:
            return np.zeros((len(deals), 0))
        chosen = np.empty((len(deals), self.num_rows), np.float32)
        for place, (picked, is_window) in enumerate(deals):
            chosen[place] = 0.0 if is_window else 1.0
            chosen[place, picked] = 1.0 if is_window else 0.0
        return np.asarray(chosen @ self._rows, np.float64)


def _places(pooled: Sequence[Pooled]) -> list[slice]:
    found, ends = [], {Binned: 0, Summed: 0}
    for one in pooled:
        width = one.num_bins + 1 if isinstance(one, Binned) else one.rows.shape[1]
        found.append(slice(ends[type(one)], ends[type(one)] + width))
        ends[type(one)] += width
    return found


def _deal(num_rows: int, num_window: int, generator: np.random.Generator, *, as_seen: bool) -> Deal:
    num_reference = num_rows - num_window
    is_window = num_window <= num_reference
    if as_seen:
        seen = np.arange(num_reference, num_rows) if is_window else np.arange(num_reference)
        return seen, is_window
    size = min(num_window, num_reference)
    return generator.choice(num_rows, size, replace=False, shuffle=False), is_window


def _measured(one: Pooled, distance: Distance, reference: Floats, window: Floats, num_window: int) -> Floats:
    if isinstance(one, Binned):
        return distance.measure(reference[:, :-1], window[:, :-1], one.positions)
    if one.kind == "vector":
        num_reference = len(one.rows) - num_window
        apart: Floats = np.sqrt(((reference / num_reference - window / num_window) ** 2).sum(axis=-1))
        return apart
    # Sums of single precision may come out a hair below nothing.
    return distance.measure(np.maximum(reference, 0.0), np.maximum(window, 0.0), None)

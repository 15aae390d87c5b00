"""What every distance is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["numeric", "categorical", "counts", "vector"]
"""Of a feature: numbers in their order; names; how often each of several things stands in a row; a point in space."""

Floats = NDArray[np.float64]


class Measure(Protocol):
    """Says how far two samples are from each other; 0 where they are alike, or where one of them is empty.

    Called with counts on a common grid, the last axis being its bins: thousands of pairs at a time, of permuted rows.
    positions: the bins' places in ascending order; None where bins are names. Symmetric, never negative, never NaN.
    """

    def __call__(self, reference: Floats, window: Floats, positions: Floats | None, /) -> Floats: ...


@dataclass(frozen=True)
class Distance:
    """A measure, and what it can be used for."""

    name: str
    takes: frozenset[Kind]
    measure: Measure


def shares(counts: Floats) -> Floats:
    """Of each bin; nothing where there is nothing."""
    totals = counts.sum(axis=-1, keepdims=True)
    found: Floats = np.divide(counts, totals, out=np.zeros_like(counts, np.float64), where=totals > 0)
    return found


def both_filled(reference: Floats, window: Floats) -> NDArray[np.bool_]:
    """Where there is something to compare."""
    filled: NDArray[np.bool_] = (reference.sum(axis=-1) > 0) & (window.sum(axis=-1) > 0)
    return filled


def steps_apart(reference: Floats, window: Floats) -> Floats:
    """Difference of the two cumulative distributions behind each bin."""
    return np.cumsum(shares(reference) - shares(window), axis=-1)

"""Two models' logits over the same tokens, and what they go on with: how far apart, and where. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 32
"""Positions that are looked at side by side: a vocabulary is wide."""


@dataclass(frozen=True)
class Gap:
    """The largest of one kind, and the position where it stands."""

    value: float
    position: int


@dataclass(frozen=True)
class Differences:
    """Between two arrays of logits, position by position."""

    largest: Gap
    mean: Gap
    """Over the vocabulary, at the worst position."""
    kl: Gap


def differences(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Differences:
    """Arrays of one shape (positions, vocabulary). What is no number is infinitely far away."""
    import numpy as np

    columns: list[list[float]] = [[], [], []]
    for start in range(0, len(expected), _ROWS):
        one = expected[start : start + _ROWS].astype(np.float64)
        other = found[start : start + _ROWS].astype(np.float64)
        apart = np.where(np.isfinite(other), np.abs(one - other), np.inf)
        columns[0] += apart.max(axis=1).tolist()
        columns[1] += apart.mean(axis=1).tolist()
        with np.errstate(invalid="ignore", over="ignore"):
            first, second = _log_softmax(one), _log_softmax(other)
            kl = (np.exp(first) * (first - second)).sum(axis=1)
        columns[2] += np.where(np.isfinite(kl), np.maximum(kl, 0.0), np.inf).tolist()
    largest, mean, kl_gap = (Gap(max(values), values.index(max(values))) for values in columns)
    return Differences(largest, mean, kl_gap)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def first_other_token(expected: list[int], found: list[int]) -> int | None:
    """The first place where two answers part; None where they are one."""
    for place, (one, other) in enumerate(zip(expected, found, strict=False)):
        if one != other:
            return place
    return None if len(expected) == len(found) else min(len(expected), len(found))


def lead(logits: NDArray[np.float32]) -> float:
    """Of the likeliest token over the next one, at one position."""
    import numpy as np

    two = np.partition(logits, -2)[-2:]
    return float(two[1] - two[0])

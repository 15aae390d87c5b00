"""Two models' scores on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raytrain.errors import DataError


@dataclass(frozen=True)
class Interval:
    """A confidence interval, and how it was made."""

    low: float
    high: float
    level: float
    method: str

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Test:
    """A test's answer. `statistic` is the method's own."""

    p_value: float
    statistic: float
    method: str


Test.__test__ = False  # type: ignore[attr-defined]  # pytest takes the name for one of its own


@dataclass(frozen=True)
class Pairs:
    """Scores of a baseline and a candidate, item by item; build it with `pair`."""

    baseline: NDArray[np.float64]
    """(items,)"""
    candidate: NDArray[np.float64]
    """(items,)"""
    groups: NDArray[np.int64] | None = None
    """(items,) the number of each item's group, 0 to groups - 1; None where items stand for themselves."""

    def __len__(self) -> int:
        return len(self.baseline)

    @property
    def differences(self) -> NDArray[np.float64]:
        """candidate - baseline, (items,)."""
        return self.candidate - self.baseline

    @property
    def is_binary(self) -> bool:
        """Whether every score is 0 or 1."""
        both = np.concatenate([self.baseline, self.candidate])
        return bool(np.isin(both, (0.0, 1.0)).all())

    @property
    def are_shares(self) -> bool:
        """Whether every score lies in [0, 1]."""
        both = np.concatenate([self.baseline, self.candidate])
        return bool(both.min() >= 0.0 and both.max() <= 1.0)

    @property
    def num_won(self) -> int:
        """Items on which the candidate scores more."""
        return int((self.differences > 0).sum())

    @property
    def num_lost(self) -> int:
        return int((self.differences < 0).sum())

    @property
    def gain(self) -> float:
        """Mean difference."""
        return float(self.differences.mean())

    @property
    def num_units(self) -> int:
        """What is independent of each other: groups, or items."""
        return len(self) if self.groups is None else int(self.groups.max()) + 1

    def unit_sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum of the differences and number of the items in each unit: (units,) twice."""
        if self.groups is None:
            return self.differences, np.ones(len(self))
        sums = np.bincount(self.groups, self.differences, self.num_units).astype(np.float64)
        return sums, np.bincount(self.groups, minlength=self.num_units).astype(np.float64)


def pair(baseline: ArrayLike, candidate: ArrayLike, groups: Sequence[object] | None = None) -> Pairs:
    """Scores of the same items in the same order; `groups` names what items belong together (one repository, one text).

    Raises DataError where there is no item, lengths differ, or a score is no number.
    """
    left, right = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    if left.ndim != 1 or left.shape != right.shape or (groups is not None and len(groups) != len(left)):
        raise DataError(
            "scores cannot be paired",
            why=f"{left.shape} scores of the baseline stand against {right.shape}"
            + ("" if groups is None else f" and {len(groups)} groups"),
            fix="evaluate both on the same items",
        )
    if not len(left):
        raise DataError(
            "there is nothing to compare", why="no item was scored", fix="give a suite with items"
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        number = int((~np.isfinite(left) | ~np.isfinite(right)).sum())
        raise DataError(
            f"{number} of {len(left)} scores are not numbers",
            why="NaN or infinity has no mean",
            fix="count such an item as wrong, or look into why it has no score",
        )
    if groups is None:
        return Pairs(left, right)
    numbers: dict[object, int] = {}
    return Pairs(left, right, np.array([numbers.setdefault(one, len(numbers)) for one in groups], np.int64))

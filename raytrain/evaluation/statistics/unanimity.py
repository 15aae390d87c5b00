"""Where every unit shows the same difference: no spread to estimate an error from, and yet no certainty.

If a share s of all units differed from what was seen, n units alike would be seen with chance (1 - s)^n; scores lie in
[0, 1], so that those others may differ by anything from -1 to 1. This is the argument of the "rule of three", Hanley &
Lippman-Hand 1983, "If nothing goes wrong, is everything all right?", for any difference in place of none.
"""

from __future__ import annotations

import math

import numpy as np

from raytrain.evaluation.statistics.pairs import Interval, Pairs, Test
from raytrain.evaluation.statistics.proportions import most_failures

_ROUNDING = 1e-12


def common_difference(pairs: Pairs) -> float | None:
    """The difference that all units show; None where they show different ones."""
    sums, sizes = pairs.unit_sums()
    means = sums / sizes
    return pairs.gain if float(np.ptp(means)) <= _ROUNDING else None


def unanimous_interval(pairs: Pairs, level: float) -> Interval:
    """Every mean difference that does not make unanimity less likely than 1 - level; all where scores leave [0, 1]."""
    if not pairs.are_shares:
        return Interval(-math.inf, math.inf, level, "unanimous units")
    others = most_failures(pairs.num_units, level)
    seen = pairs.gain
    return Interval(seen - others * (1.0 + seen), seen + others * (1.0 - seen), level, "unanimous units")


def unanimous_test(pairs: Pairs, bound: float = 0.0, name: str = "unanimous units") -> Test:
    """Chance of unanimity where the true mean difference lies at `bound`, or beyond it as seen from the units."""
    seen = pairs.gain
    if not pairs.are_shares or seen == bound:
        return Test(1.0, 0.0, name)
    others = (seen - bound) / (1.0 + seen) if seen > bound else (bound - seen) / (1.0 - seen)
    return Test(max(0.0, 1.0 - min(1.0, others)) ** pairs.num_units, seen - bound, name)

"""No worse than, and as good as: tests whose null hypothesis is a difference."""

from __future__ import annotations

import numpy as np
from scipy import stats

from raytrain.evaluation.statistics.means import design_effect, standard_error
from raytrain.evaluation.statistics.pairs import Pairs, Test
from raytrain.evaluation.statistics.proportions import tango_statistic
from raytrain.evaluation.statistics.unanimity import common_difference, unanimous_test

_FEW = 30
"""Units with a difference, below which the t test of a mean is not to be trusted far from it."""


def no_worse(pairs: Pairs, margin: float) -> Test:
    """One-sided test against a loss of `margin` or more: a small p-value says that the candidate loses less.

    Shares: Tango 1998, Statistics in Medicine 17. Means: Student's t around -margin. Shares in groups must pass both:
    few differences that happen to be wins show t a spread that no world with such a loss has.
    """
    return _beyond(pairs, -margin, 1.0, "no worse")


def equivalent(pairs: Pairs, margin: float) -> Test:
    """Two one-sided tests: a small p-value says that the difference lies inside ±margin.

    Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach".
    """
    from_below = _beyond(pairs, -margin, 1.0, "equivalent")
    from_above = _beyond(pairs, margin, -1.0, "equivalent")
    return max(from_below, from_above, key=lambda test: test.p_value)


def beyond(pairs: Pairs, margin: float) -> Test:
    """A small p-value says that the difference is more than `margin`, on either side, whose chances are added."""
    sign = 1.0 if pairs.gain > 0 else -1.0
    found = _beyond(pairs, sign * margin, sign, "beyond")
    return Test(min(1.0, 2.0 * found.p_value), found.statistic, found.method)


def _beyond(pairs: Pairs, bound: float, sign: float, name: str) -> Test:
    """Against a difference of `bound`, on the side that `sign` says."""
    if pairs.groups is None and pairs.is_binary:
        statistic = sign * tango_statistic(pairs.num_won, pairs.num_lost, len(pairs), bound)
        return Test(float(stats.norm.sf(statistic)), statistic, f"{name}, Tango score")
    if common_difference(pairs) is not None:
        if sign * (pairs.gain - bound) <= 0.0:
            return Test(1.0, 0.0, f"{name}, unanimous units")
        return unanimous_test(pairs, bound, f"{name}, unanimous units")
    error, freedom = standard_error(pairs)
    statistic = sign * (pairs.gain - bound) / error
    found = Test(float(stats.t.sf(statistic, freedom)), statistic, f"{name}, t")
    if pairs.are_shares and (pairs.is_binary or _num_changed_units(pairs) < _FEW):
        return max(found, _score_of_groups(pairs, bound, sign, name), key=lambda test: test.p_value)
    return found


def _num_changed_units(pairs: Pairs) -> int:
    return int(np.count_nonzero(pairs.unit_sums()[0]))


def _score_of_groups(pairs: Pairs, bound: float, sign: float, name: str) -> Test:
    """Tango's score of as many items as the groups are worth: its spread is that of a world where `bound` is true.

    Dividing counts by the design effect: Rao & Scott 1992, "A simple method for the analysis of clustered binary data",
    Biometrics 48. Grades count by their parts won and lost, whose spread as whole items is the largest they can have.
    """
    effect = design_effect(pairs)
    differences = pairs.differences
    won, lost = float(differences[differences > 0].sum()), float(-differences[differences < 0].sum())
    statistic = sign * tango_statistic(won / effect, lost / effect, len(pairs) / effect, bound)
    return Test(float(stats.norm.sf(statistic)), statistic, f"{name}, Tango score of effective items")

"""No worse than, and as good as: tests whose null hypothesis is a difference."""

from __future__ import annotations

import math

from scipy import stats

from raytrain.evaluation.statistics.means import standard_error
from raytrain.evaluation.statistics.pairs import Pairs, Test
from raytrain.evaluation.statistics.proportions import tango_statistic


def no_worse(pairs: Pairs, margin: float) -> Test:
    """One-sided test against a loss of `margin` or more: a small p-value says that the candidate loses less.

    Shares: Tango 1998, Statistics in Medicine 17. Means: Student's t around -margin.
    """
    return _beyond(pairs, -margin, 1.0, "no worse")


def equivalent(pairs: Pairs, margin: float) -> Test:
    """Two one-sided tests: a small p-value says that the difference lies inside ±margin.

    Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach".
    """
    from_below = _beyond(pairs, -margin, 1.0, "equivalent")
    from_above = _beyond(pairs, margin, -1.0, "equivalent")
    return max(from_below, from_above, key=lambda test: test.p_value)


def _beyond(pairs: Pairs, bound: float, sign: float, name: str) -> Test:
    """Against a difference of `bound`, on the side that `sign` says."""
    error, freedom = standard_error(pairs)
    if (pairs.groups is None and pairs.is_binary) or error == 0.0:
        # Without any spread the units alone say how sure one can be.
        share = pairs.num_units / len(pairs)
        statistic = sign * tango_statistic(
            pairs.num_won * share, pairs.num_lost * share, pairs.num_units, bound
        )
        return Test(float(stats.norm.sf(statistic)), statistic, f"{name}, Tango score")
    if not math.isfinite(error):
        return Test(1.0, 0.0, f"{name}, t")
    statistic = sign * (pairs.gain - bound) / error
    return Test(float(stats.t.sf(statistic, freedom)), statistic, f"{name}, t")

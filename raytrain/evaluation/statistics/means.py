"""Differences of graded scores: tests and intervals of their mean, items alone or in groups."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from raytrain.evaluation.statistics.pairs import Interval, Pairs, Test


def standard_error(pairs: Pairs) -> tuple[float, float]:
    """Standard error of the mean difference, and its degrees of freedom: units - 1.

    In groups: the sandwich estimate of a ratio of sums, Cochran 1977, "Sampling techniques", equation 11.30 (what
    Miller 2024, arXiv:2411.00640, section 2.2, asks of evaluations), times units / (units - 1).
    One unit has no spread to be seen: infinite, 0.
    """
    sums, sizes = pairs.unit_sums()
    units = len(sums)
    if units < 2:
        return math.inf, 0.0
    residuals = sums - sizes * pairs.gain
    variance = units / (units - 1) * float(residuals @ residuals) / len(pairs) ** 2
    return math.sqrt(variance), units - 1.0


def paired_t(pairs: Pairs) -> Test:
    """Two-sided test that the mean difference is zero. Student 1908; its standard error: `standard_error`."""
    error, freedom = standard_error(pairs)
    method = "paired t" if pairs.groups is None else "paired t, clustered"
    if freedom == 0.0 or error == 0.0:
        return Test(1.0, 0.0, method)  # without a spread it says nothing; see unanimity.py
    t = pairs.gain / error
    return Test(float(2.0 * stats.t.sf(abs(t), freedom)), t, method)


def t_interval(pairs: Pairs, level: float = 0.95) -> Interval:
    """Of the mean difference, by `standard_error` and Student's t."""
    error, freedom = standard_error(pairs)
    method = "t" if pairs.groups is None else "t, clustered"
    if freedom == 0.0:
        return Interval(-math.inf, math.inf, level, method)
    reach = float(stats.t.ppf((1.0 + level) / 2.0, freedom)) * error
    return Interval(pairs.gain - reach, pairs.gain + reach, level, method)


def sign_test(pairs: Pairs) -> Test:
    """Two-sided test that gains and losses are equally many, however large; of groups, each counts once.

    Arbuthnot 1710; ties are left out, Dixon & Mood 1946, "The statistical sign test".
    """
    sums, _ = pairs.unit_sums()
    num_gains, num_losses = int((sums > 0).sum()), int((sums < 0).sum())
    changed = num_gains + num_losses
    p_value = 1.0 if changed == 0 else float(stats.binomtest(num_gains, changed).pvalue)
    return Test(p_value, float(num_gains - num_losses), "sign")


def wilcoxon(pairs: Pairs) -> Test:
    """Two-sided signed-rank test that differences lie evenly around zero; of groups, each counts once, by its mean.

    Wilcoxon 1945, "Individual comparisons by ranking methods"; zeros by Pratt 1959, "Remarks on zeros and ties".
    """
    sums, sizes = pairs.unit_sums()
    differences = sums / sizes
    if not np.any(differences):
        return Test(1.0, 0.0, "Wilcoxon signed-rank")
    found = stats.wilcoxon(differences, zero_method="pratt")
    return Test(float(found.pvalue), float(found.statistic), "Wilcoxon signed-rank")


def design_effect(pairs: Pairs) -> float:
    """How many times as many items the groups cost, at least 1: the variance of the mean with groups over that without.

    Kish 1965, "Survey sampling", section 8.2. Infinite where there is one group, whose spread nobody knows.
    """
    if pairs.groups is None:
        return 1.0
    clustered, _ = standard_error(pairs)
    alone, _ = standard_error(Pairs(pairs.baseline, pairs.candidate))
    return max(1.0, (clustered / alone) ** 2) if alone > 0.0 else 1.0

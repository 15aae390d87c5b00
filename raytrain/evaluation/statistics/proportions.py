"""One share, and two shares of the same items."""

from __future__ import annotations

import math

from scipy import optimize, stats

from raytrain.evaluation.statistics.pairs import Interval, Test


def wilson_interval(num_right: int, num_items: int, level: float = 0.95) -> Interval:
    """Of one share. Wilson 1927, "Probable inference, the law of succession, and statistical inference"."""
    found = stats.binomtest(num_right, num_items).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high), level, "Wilson")


def most_failures(num_items: int, level: float = 0.95) -> float:
    """Largest share of failures that none in so many items leaves open: 1 - (1 - level)^(1/n), about 3/n at 95 %.

    Hanley & Lippman-Hand 1983, "If nothing goes wrong, is everything all right?"; exact as Clopper & Pearson 1934.
    """
    return -math.expm1(math.log1p(-level) / num_items)


def cohens_h(before: float, after: float) -> float:
    """Size of the step from one share to another; 0.2 is small, 0.5 medium, 0.8 large.

    Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 6.
    """
    return 2.0 * math.asin(math.sqrt(after)) - 2.0 * math.asin(math.sqrt(before))


def mcnemar_exact(num_won: int, num_lost: int) -> Test:
    """Two-sided test that wins and losses are equally likely: the sign test on discordant items.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions"; exact form in
    Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91.
    """
    if num_won + num_lost == 0:
        return Test(1.0, 0.0, "McNemar exact")
    p_value = float(stats.binomtest(num_won, num_won + num_lost).pvalue)
    return Test(p_value, float(num_won - num_lost), "McNemar exact")


def mcnemar_mid_p(num_won: int, num_lost: int) -> Test:
    """The exact test less half the chance of what was seen, so that its level is met on average, not from below.

    Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91, whose recommendation it is.
    """
    num_discordant = num_won + num_lost
    if num_discordant == 0:
        return Test(1.0, 0.0, "McNemar mid-p")
    smaller = min(num_won, num_lost)
    tail = float(stats.binom.cdf(smaller, num_discordant, 0.5))
    seen = float(stats.binom.pmf(smaller, num_discordant, 0.5))
    p_value = 1.0 - 0.5 * seen if num_won == num_lost else 2.0 * tail - seen
    return Test(min(1.0, p_value), float(num_won - num_lost), "McNemar mid-p")


def tango_statistic(num_won: float, num_lost: float, num_items: float, difference: float) -> float:
    """Score statistic, standard normal where the true difference of the two shares is `difference`.

    Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17, equations 4 to 7. Counts may be fractions.
    """
    n = num_items
    a = 2.0 * n
    b = -num_won - num_lost + (2.0 * n - num_won + num_lost) * difference
    c = -num_lost * difference * (1.0 - difference)
    # The likeliest share of lost items, given the difference; a root that rounding makes negative is 0.
    share = (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    variance = n * (2.0 * share + difference * (1.0 - difference))
    distance = num_won - num_lost - n * difference
    if variance <= 0.0:
        return 0.0 if distance == 0.0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def tango_interval(num_won: float, num_lost: float, num_items: int, level: float = 0.95) -> Interval:
    """Of the difference of two shares of the same items: every difference that `tango_statistic` does not refute.

    It has a width also where the two never differ: on 30 items such a pair may still differ by 11 points.
    """
    limit = float(stats.norm.ppf((1.0 + level) / 2.0))
    seen = (num_won - num_lost) / num_items

    def excess(difference: float, sign: float) -> float:
        return sign * tango_statistic(num_won, num_lost, num_items, difference) - limit

    edge = 1.0 - 1e-12
    low = -1.0 if excess(-edge, 1.0) < 0 else _root(lambda d: excess(d, 1.0), -edge, min(seen, edge))
    high = 1.0 if excess(edge, -1.0) < 0 else _root(lambda d: excess(d, -1.0), max(seen, -edge), edge)
    return Interval(low, high, level, "Tango score")


def _root(function: object, low: float, high: float) -> float:
    if low >= high:
        return low
    return float(optimize.brentq(function, low, high, xtol=1e-12))

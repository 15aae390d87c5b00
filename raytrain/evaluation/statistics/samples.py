"""Two models' scores on different items, where chance has said which item is whose: what cannot be paired."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from raytrain.errors import DataError
from raytrain.evaluation.statistics.gains import Verdict, Word, items_to_tell, level_after
from raytrain.evaluation.statistics.pairs import Interval, Test
from raytrain.evaluation.statistics.power import items_for_equivalence, items_for_mean, smallest_gain_of_mean
from raytrain.evaluation.statistics.proportions import most_failures

_ROUNDING = 1e-12
"""Of a score, below which a spread is none."""


@dataclass(frozen=True)
class Samples:
    """Scores of a baseline and a candidate, each of its own items, which are independent; build it with `samples`."""

    baseline: NDArray[np.float64]
    """(items of the baseline,)"""
    candidate: NDArray[np.float64]
    """(items of the candidate,)"""

    def __len__(self) -> int:
        """Items of the side that has fewer."""
        return min(len(self.baseline), len(self.candidate))

    @property
    def is_binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return all(bool(np.isin(side, (0.0, 1.0)).all()) for side in (self.baseline, self.candidate))

    @property
    def gain(self) -> float:
        """Difference of the means."""
        return float(self.candidate.mean() - self.baseline.mean())

    @property
    def deviation(self) -> float:
        """Of the difference of one item of each side."""
        sides = (self.baseline, self.candidate)
        return math.sqrt(sum(float(np.var(one, ddof=1)) for one in sides if len(one) > 1))


def samples(baseline: ArrayLike, candidate: ArrayLike) -> Samples:
    """Raises DataError where a side has no item, or a score is no number."""
    sides = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    for side in sides:
        if side.ndim != 1 or not len(side) or not np.isfinite(side).all():
            raise DataError(
                "scores cannot be compared",
                why=f"{side.shape} scores of one side, {int((~np.isfinite(side)).sum())} of them no numbers",
                fix="compare sides that have a score each",
            )
    return Samples(*sides)


def score_statistic(num_right: tuple[int, int], num_items: tuple[int, int], difference: float) -> float:
    """Standard normal where the true difference of two independent shares, candidate less baseline, is `difference`.

    num_right, num_items: the candidate's and the baseline's. Miettinen & Nurminen 1985, "Comparative analysis of two
    rates", Statistics in Medicine 4; the likeliest shares in closed form: Farrington & Manning 1990, "Test statistics
    and sample size formulae for comparative binomial trials", Statistics in Medicine 9, appendix.
    """
    n1, n0 = num_items
    seen1, seen0 = num_right[0] / n1, num_right[1] / n0
    share1 = _likeliest(seen1, seen0, n0 / n1, difference)
    share0 = min(1.0, max(0.0, share1 - difference))
    num = n1 + n0
    variance = (share1 * (1.0 - share1) / n1 + share0 * (1.0 - share0) / n0) * num / (num - 1)
    distance = seen1 - seen0 - difference
    if variance <= 1e-15:
        return 0.0 if abs(distance) < 1e-12 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _likeliest(seen1: float, seen0: float, ratio: float, difference: float) -> float:
    """The candidate's share under which what was seen is likeliest, where the baseline's is `difference` less.

    ratio: items of the baseline over the candidate's.
    """
    a = 1.0 + ratio
    b = -(1.0 + ratio + seen1 + ratio * seen0 + difference * (ratio + 2.0))
    c = difference**2 + difference * (2.0 * seen1 + ratio + 1.0) + seen1 + ratio * seen0
    d = -seen1 * difference * (1.0 + difference)
    v = (b / (3.0 * a)) ** 3 - b * c / (6.0 * a * a) + d / (2.0 * a)
    u = math.copysign(math.sqrt(max(0.0, (b / (3.0 * a)) ** 2 - c / (3.0 * a))), v)
    cosine = v / u**3 if u else 0.0
    angle = (math.pi + math.acos(min(1.0, max(-1.0, cosine)))) / 3.0
    found = 2.0 * u * math.cos(angle) - b / (3.0 * a)
    return min(1.0, 1.0 + difference, max(0.0, difference, found))


def score_interval(num_right: tuple[int, int], num_items: tuple[int, int], level: float = 0.95) -> Interval:
    """Every difference that `score_statistic` does not refute."""
    limit = float(stats.norm.ppf((1.0 + level) / 2.0))
    seen = num_right[0] / num_items[0] - num_right[1] / num_items[1]
    edge = 1.0 - 1e-9

    def end(sign: float) -> float:
        def excess(difference: float) -> float:
            return sign * score_statistic(num_right, num_items, difference) - limit

        far, near = -sign * edge, min(edge, max(-edge, seen))
        if far == near or excess(far) < 0.0:
            return -sign
        return float(optimize.brentq(excess, far, near, xtol=1e-12))

    return Interval(end(1.0), end(-1.0), level, "Miettinen-Nurminen score")


def samples_interval(found: Samples, level: float = 0.95) -> Interval:
    """Of the difference of the means. Shares: `score_interval`; else Welch 1947, "The generalization of 'Student's'
    problem when several different population variances are involved", Biometrika 34."""
    if found.is_binary:
        return score_interval(*_counts(found), level)
    error, freedom = _welch(found)
    reach = float(stats.t.ppf((1.0 + level) / 2.0, freedom)) * error if error else math.inf
    return Interval(found.gain - reach, found.gain + reach, level, "Welch t")


def samples_test(found: Samples) -> Test:
    """Two-sided test that both means are the same, by the method that belongs to `samples_interval`."""
    test = _beyond(found, 0.0, 1.0 if found.gain > 0 else -1.0)
    return Test(min(1.0, 2.0 * test.p_value), test.statistic, test.method)


def samples_beyond(found: Samples, margin: float) -> Test:
    """A small p-value says that the difference is more than `margin`, on either side, whose chances are added."""
    sign = 1.0 if found.gain > 0 else -1.0
    test = _beyond(found, sign * margin, sign)
    return Test(min(1.0, 2.0 * test.p_value), test.statistic, f"beyond, {test.method}")


def judge_samples(
    found: Samples, test: Test, *, margin: float, level: float = 0.05, p_value: float | None = None
) -> Verdict:
    """Better or worse where the test says so at `level`, equivalent where two one-sided tests (Schuirmann 1987) say
    that the gain lies inside ±margin. `needs_items`: of each side.

    test: `samples_test` or `samples_beyond`; p_value: its after a correction for several, None = as it is.
    """
    p_value = test.p_value if p_value is None else p_value
    gain, interval = found.gain, samples_interval(found, 1.0 - level)
    smallest = smallest_gain_of_mean(len(found), found.deviation, level=level)
    word: Word = "cannot tell"
    if p_value <= level:
        word = "better" if gain > 0 else "worse"
    elif max(_beyond(found, -margin, 1.0).p_value, _beyond(found, margin, -1.0).p_value) <= level:
        word = "equivalent"
    needs = (
        _needs(found, margin, level, level_after(test.p_value, p_value, level))
        if word == "cannot tell"
        else None
    )
    return Verdict(word, gain, interval, test, margin, smallest, needs)


def _needs(found: Samples, margin: float, level: float, held_to: float) -> int | None:
    """Items of each side that would tell, where both have as many."""
    deviation = found.deviation or (math.sqrt(2.0 * most_failures(len(found))) if found.is_binary else 0.0)
    if deviation == 0.0:
        return None
    return items_to_tell(
        found.gain,
        margin,
        len(found),
        lambda size: items_for_mean(size, deviation, level=held_to),
        lambda: items_for_equivalence(found.gain, margin, deviation, level=level),
    )


def _beyond(found: Samples, bound: float, sign: float) -> Test:
    """Against a difference of `bound`, on the side that `sign` says."""
    if found.is_binary:
        statistic = sign * score_statistic(*_counts(found), bound)
        return Test(float(stats.norm.sf(statistic)), statistic, "Miettinen-Nurminen score")
    error, freedom = _welch(found)
    if error == 0.0:
        return Test(1.0, 0.0, "Welch t")  # without a spread it says nothing
    statistic = sign * (found.gain - bound) / error
    return Test(float(stats.t.sf(statistic, freedom)), statistic, "Welch t")


def _counts(found: Samples) -> tuple[tuple[int, int], tuple[int, int]]:
    sides = found.candidate, found.baseline
    right, items = tuple(int(one.sum()) for one in sides), tuple(map(len, sides))
    return (right[0], right[1]), (items[0], items[1])


def _welch(found: Samples) -> tuple[float, float]:
    """Standard error of the difference, and its degrees of freedom (Satterthwaite 1946); 0, 0 without a spread."""
    sides = found.candidate, found.baseline
    parts = [(float(np.var(one, ddof=1)) / len(one), len(one) - 1) for one in sides if len(one) > 1]
    variance = sum(part for part, _ in parts)
    if len(parts) < 2 or variance <= (_ROUNDING * max(float(np.abs(one).max()) for one in sides)) ** 2:
        return 0.0, 0.0
    return math.sqrt(variance), variance**2 / sum(part**2 / freedom for part, freedom in parts)

"""Two sides with items of their own: against statsmodels, a printed example, and by counting every outcome."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats import proportion, weightstats

from raytrain.errors import DataError
from raytrain.evaluation.statistics.samples import (
    Samples,
    judge_samples,
    samples,
    samples_beyond,
    samples_interval,
    samples_test,
    score_interval,
    score_statistic,
)

COUNTS = [
    ((56, 48), (70, 80)),
    ((9, 3), (10, 10)),
    ((6, 2), (7, 7)),
    ((0, 5), (20, 56)),
    ((29, 30), (30, 30)),
]


def shares(num_right: tuple[int, int], num_items: tuple[int, int]) -> Samples:
    candidate, baseline = (
        [1.0] * right + [0.0] * (items - right) for right, items in zip(num_right, num_items, strict=True)
    )
    return samples(baseline, candidate)


def word(found: Samples, margin: float = 0.02) -> str:
    return judge_samples(found, samples_test(found), margin=margin).word


@pytest.mark.parametrize(("num_right", "num_items"), COUNTS)
def test_the_score_of_no_difference_is_statsmodels(
    num_right: tuple[int, int], num_items: tuple[int, int]
) -> None:
    theirs = proportion.test_proportions_2indep(
        num_right[0],
        num_items[0],
        num_right[1],
        num_items[1],
        method="score",
        compare="diff",
        correction=True,
    )
    assert score_statistic(num_right, num_items, 0.0) == pytest.approx(float(theirs.statistic), rel=1e-9)


@pytest.mark.parametrize(("num_right", "num_items"), COUNTS)
@pytest.mark.parametrize("difference", [-0.3, -0.02, 0.1])
def test_the_score_of_a_difference_is_that_of_the_likeliest_shares(
    num_right: tuple[int, int], num_items: tuple[int, int], difference: float
) -> None:
    """Which are searched for here; statsmodels 0.14 takes others, that are less likely."""

    def unlikely(share: float) -> float:
        shares = share, share - difference
        return -sum(
            float(stats.binom.logpmf(right, items, one))
            for right, items, one in zip(num_right, num_items, shares, strict=True)
        )

    ends = max(0.0, difference) + 1e-12, min(1.0, 1.0 + difference) - 1e-12
    share = optimize.minimize_scalar(unlikely, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    num = sum(num_items)
    variance = sum(
        one * (1 - one) / items for one, items in zip((share, share - difference), num_items, strict=True)
    )
    seen = num_right[0] / num_items[0] - num_right[1] / num_items[1]
    expected = (seen - difference) / math.sqrt(variance * num / (num - 1))
    assert score_statistic(num_right, num_items, difference) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("num_right", "num_items"), COUNTS)
def test_its_interval_ends_where_the_statistic_says(
    num_right: tuple[int, int], num_items: tuple[int, int]
) -> None:
    found = score_interval(num_right, num_items)
    for end, sign in ((found.low, 1.0), (found.high, -1.0)):
        if abs(end) < 1.0:
            assert score_statistic(num_right, num_items, end) == pytest.approx(sign * 1.959964, abs=1e-5)
    assert found.low < num_right[0] / num_items[0] - num_right[1] / num_items[1] < found.high


def test_the_printed_example() -> None:
    """56 of 70 and 48 of 80: Newcombe 1998, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17, table II, method 6."""
    found = score_interval((56, 48), (70, 80))
    assert (round(found.low, 4), round(found.high, 4)) == (0.0528, 0.3382)


@pytest.mark.parametrize(
    ("num_right", "num_items"), [((0, 0), (20, 30)), ((20, 30), (20, 30)), ((20, 0), (20, 30))]
)
def test_where_nothing_varies_the_interval_has_a_width(
    num_right: tuple[int, int], num_items: tuple[int, int]
) -> None:
    found = score_interval(num_right, num_items)
    seen = num_right[0] / num_items[0] - num_right[1] / num_items[1]
    assert -1.0 <= found.low <= seen <= found.high <= 1.0 and found.width > 0.1
    if abs(seen) < 1:
        assert samples_test(shares(num_right, num_items)).p_value == 1.0


@pytest.mark.parametrize("num_items", [(20, 20), (20, 180), (50, 50), (60, 200)])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.9])
def test_equal_shares_are_told_apart_as_seldom_as_the_level(num_items: tuple[int, int], share: float) -> None:
    """The chance of every outcome, added up; of being called worse at most half of that and a little."""
    chances = [stats.binom.pmf(np.arange(items + 1), items, share) for items in num_items]
    either = worse = 0.0
    for first in np.flatnonzero(chances[0] > 1e-7):
        for second in np.flatnonzero(chances[1] > 1e-7):
            statistic = score_statistic((int(first), int(second)), num_items, 0.0)
            if abs(statistic) > 1.959964:
                chance = float(chances[0][first] * chances[1][second])
                either, worse = either + chance, worse + chance * (statistic < 0)
    # One side much larger than the other makes the tails differ: 4.1 % of one, none of the other.
    assert either <= 0.058 and worse <= 0.045


def test_grades_are_welch() -> None:
    draw = np.random.default_rng(3)
    left, right = draw.normal(0.2, 1.0, 40), draw.normal(0.5, 2.0, 25)
    found = samples(left, right)
    theirs = weightstats.CompareMeans.from_data(right, left)
    test = samples_test(found)
    assert test.p_value == pytest.approx(theirs.ttest_ind(usevar="unequal")[1], rel=1e-9)
    interval = samples_interval(found)
    assert (interval.low, interval.high) == pytest.approx(theirs.tconfint_diff(usevar="unequal"), rel=1e-9)
    beyond = stats.ttest_ind(right - 0.1, left, equal_var=False).pvalue
    assert samples_beyond(found, 0.1).p_value == pytest.approx(beyond, rel=1e-9)


def test_words() -> None:
    assert word(shares((50, 90), (100, 100))) == "worse"
    assert word(shares((90, 50), (100, 100))) == "better"
    assert word(shares((9_000, 9_000), (10_000, 10_000))) == "equivalent"
    unsure = shares((48, 50), (100, 100))
    verdict = judge_samples(unsure, samples_test(unsure), margin=0.02)
    assert verdict.word == "cannot tell" and verdict.needs_items is not None
    assert 1_000 < verdict.needs_items < 20_000, "of each side, to see two points of fifty"
    corrected = judge_samples(
        both := shares((50, 65), (100, 100)), samples_test(both), margin=0.02, p_value=0.2
    )
    assert corrected.word == "cannot tell" and word(both) == "worse"


def test_grades_without_a_spread_say_nothing() -> None:
    found = samples([0.3] * 10, [0.4] * 10)
    assert word(found) == "cannot tell" and samples_interval(found).width == math.inf


@pytest.mark.parametrize(
    ("baseline", "candidate"), [([], [1.0]), ([1.0], []), ([1.0, math.nan], [1.0]), ([[1.0]], [1.0])]
)
def test_what_cannot_be_compared(baseline: list[float], candidate: list[float]) -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        samples(baseline, candidate)

"""Thresholds keep their promise, and nothing that a column holds raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from raytrain.monitoring.drift.calibration import Judgement, judge_window
from raytrain.monitoring.drift.columns import Binned, Column, names, numbers, pool_columns
from raytrain.monitoring.drift.distances.known import DISTANCES


def table(num_rows: int, generator: np.random.Generator, shift: float = 0.0) -> list[Column]:
    latent = generator.standard_normal((num_rows, 1)) + generator.standard_normal((num_rows, 4))
    lacking = np.where(generator.random(num_rows) < 0.2, np.nan, latent[:, 3])
    return [
        numbers("a", latent[:, 0] / 2**0.5 + shift),
        numbers("b", latent[:, 1]),
        numbers("rounded", np.round(latent[:, 2])),
        numbers("lacking", lacking),
        numbers("still", np.zeros(num_rows)),
        names("name", np.where(latent[:, 1] > 2, "rare", "common").tolist()),
        Column("words", "counts", generator.poisson(0.3, (num_rows, 16)).astype(np.float32)),
    ]


def judged(size: int, shift: float, seed: int, **asked: Any) -> Judgement:
    generator = np.random.default_rng(seed)
    then, now = table(800, generator), table(size, generator, shift)
    return judge_window(then, now, **{"permutations": 199, "seed": seed, **asked})


@pytest.mark.thorough
@pytest.mark.parametrize("size", [60, 400, 1600])
def test_windows_without_drift_are_alarms_as_often_as_is_stated(size: int) -> None:
    """Of 400 windows 20 are expected; outside of 8 to 35 lies what happens to one test in a thousand."""
    alarms = sum(judged(size, 0.0, seed).is_drift for seed in range(400))
    low, high = stats.binom.ppf([0.0005, 0.9995], 400, 0.05)
    assert low <= alarms <= high, f"{alarms} of 400"


@pytest.mark.slow
def test_a_hundred_windows_without_drift_are_few_alarms() -> None:
    """Five are expected; more than 13 are so in one of a thousand such tests."""
    alarms = sum(judged(60, 0.0, seed, permutations=99).is_drift for seed in range(100))
    assert 0 < alarms <= 13, f"{alarms} of 100"


def test_a_shift_is_found_and_named() -> None:
    for seed in range(10):
        found = judged(500, 0.5, seed)
        assert found.is_drift and found.features[0].name == "a", found
        assert found.features[0].value > found.features[0].threshold > 0
        assert "a" in [one.name for one in found.moved]


def test_an_alarm_is_where_a_feature_is_beyond_its_threshold() -> None:
    outcomes = set()
    for seed in range(30):
        found = judged(80, 0.25, seed)
        beyond = [one.name for one in found.features if one.value >= one.threshold > 0]
        assert bool(beyond) == found.is_drift, found
        assert bool(found.moved) == found.is_drift
        outcomes.add(found.is_drift)
    assert outcomes == {True, False}, "the test has seen both"


def test_thresholds_are_lower_where_a_window_is_larger() -> None:
    small, large = (
        {one.name: one.threshold for one in judged(size, 0.0, 1).features} for size in (50, 2_000)
    )
    assert all(large[name] < small[name] for name in ("a", "b", "rounded", "name", "words"))


def test_p_values_of_features_are_those_of_a_permutation_test() -> None:
    generator = np.random.default_rng(3)
    left, right = generator.normal(size=60), generator.normal(0.35, 1.0, size=40)
    then, now = [numbers("x", left)], [numbers("x", right)]
    found = judge_window(then, now, permutations=4999, distances={"numeric": DISTANCES["wasserstein"]})
    oracle = stats.permutation_test(
        (left, right), stats.wasserstein_distance, alternative="greater", n_resamples=4999, rng=generator
    )
    assert found.features[0].p_value == pytest.approx(oracle.pvalue, abs=0.02)
    # One feature is the furthest of all: both p-values are one.
    assert found.p_value == pytest.approx(found.features[0].p_value, abs=1e-3)


def test_adjusted_p_values_are_benjamini_and_hochbergs_over_what_varies() -> None:
    found = judged(300, 0.3, 2)
    varying = [one for one in found.features if one.threshold > 0]
    assert {one.name for one in found.features} - {one.name for one in varying} == {"still"}
    oracle = multipletests([one.p_value for one in varying], method="fdr_bh")[1]
    assert [one.adjusted_p_value for one in varying] == pytest.approx(oracle.tolist())
    assert "still" in found.notes[0]


def test_the_same_rows_get_the_same_judgement() -> None:
    assert judged(100, 0.1, 4) == judged(100, 0.1, 4)
    assert judged(100, 0.1, 4).p_value != judged(100, 0.1, 4, permutations=299).p_value


def test_points_in_space_are_compared() -> None:
    generator = np.random.default_rng(0)
    then = [Column("point", "vector", generator.normal(size=(300, 8)))]
    for shift, is_drift in ((0.0, False), (0.6, True)):
        now = [Column("point", "vector", generator.normal(shift, 1.0, size=(100, 8)))]
        assert judge_window(then, now, permutations=199).is_drift is is_drift


def test_missing_values_are_a_feature_of_their_own() -> None:
    then = [numbers("x", [1.0, 2.0, 3.0, 4.0] * 50)]
    now = [numbers("x", [1.0, 2.0, np.nan, np.inf] * 25)]
    found = judge_window(then, now, permutations=199)
    lacking = next(one for one in found.features if one.name == "x is missing")
    assert found.is_drift and lacking.has_moved
    assert [one.name for one in pool_columns(*then, *now)] == ["x", "x is missing"]


def test_unseen_names_count_and_rare_ones_are_put_together() -> None:
    then = [names("n", [f"old {i % 90}" for i in range(900)])]
    now = [names("n", ["new", "newer", None] * 50)]
    pooled = pool_columns(*then, *now)[0]
    assert isinstance(pooled, Binned) and pooled.num_bins == 64 and pooled.labels[-1] == "(other)"
    assert {"new", "newer"} <= set(pooled.labels)
    assert judge_window(then, now, permutations=199).is_drift


numeric = st.lists(st.floats() | st.sampled_from([0.0, 1.0, float("nan")]), max_size=12)
named = st.lists(st.none() | st.text(max_size=3) | st.just("\ud800"), max_size=12)


@settings(deadline=None, max_examples=50)
@given(numeric, numeric, named, named, st.sampled_from(sorted(DISTANCES)))
def test_nothing_that_columns_hold_raises(
    then: list[float], now: list[float], old: list[str | None], new: list[str | None], distance: str
) -> None:
    chosen: Any = dict.fromkeys(("numeric", "categorical", "counts", "vector"), DISTANCES["js"])
    chosen["numeric"] = DISTANCES[distance]
    with np.errstate(all="raise", under="ignore"):
        for left, right in (
            ([numbers("x", then)], [numbers("x", now)]),
            ([names("n", old)], [names("n", new)]),
        ):
            found = judge_window(left, right, permutations=99, distances=chosen)
            assert 0.0 < found.p_value <= 1.0
            if not len(left[0]) or not len(right[0]):
                assert not found.is_drift and "empty" in found.notes[0]


def test_no_feature_is_no_alarm() -> None:
    found = judge_window([], [])
    assert not found.is_drift and found.notes == ("there is no feature to compare",)

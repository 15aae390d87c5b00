"""Every distance against an oracle, and one contract over all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from raytrain.monitoring.drift.distances.chi_square import chi_square
from raytrain.monitoring.drift.distances.distance import Distance, Floats
from raytrain.monitoring.drift.distances.energy import energy
from raytrain.monitoring.drift.distances.js import js_distance
from raytrain.monitoring.drift.distances.known import DISTANCE_NAMES, DISTANCES
from raytrain.monitoring.drift.distances.ks import ks_statistic
from raytrain.monitoring.drift.distances.mmd import kernel_features, mmd
from raytrain.monitoring.drift.distances.psi import psi
from raytrain.monitoring.drift.distances.wasserstein import wasserstein

pytestmark = pytest.mark.whole

GENERATOR = np.random.default_rng(5)
PLACES = np.array([-3.0, -1.0, 0.0, 0.5, 2.0, 7.0, 7.5])
SAMPLES = [
    (GENERATOR.choice(PLACES, 80), GENERATOR.choice(PLACES, 50, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])),
    (GENERATOR.choice(PLACES[:3], 30), GENERATOR.choice(PLACES[2:], 300)),
    (GENERATOR.choice(PLACES, 9), GENERATOR.choice(PLACES, 9)),
]


def counts(values: Floats) -> Floats:
    return np.array([(values == place).sum() for place in PLACES], np.float64)


def by_pairs(left: Floats, right: Floats) -> float:
    """Gretton's biased estimate, pair by pair, under the kernel that the file describes."""
    both = np.concatenate([left, right])
    apart = np.sort(np.abs(both[:, None] - both[None, :]).ravel())
    width = apart[(len(apart) - 1) // 2]

    def mean(one: Floats, other: Floats) -> float:
        return float(np.exp(-(((one[:, None] - other[None, :]) / width) ** 2) / 2).mean())

    return (mean(left, left) + mean(right, right) - 2 * mean(left, right)) ** 0.5


def jeffreys(left: Floats, right: Floats) -> float:
    used = (left + right) > 0
    p, q = (np.maximum(one[used], 0.5) / np.maximum(one[used], 0.5).sum() for one in (left, right))
    return float(stats.entropy(p, q) + stats.entropy(q, p))


def pearson(left: Floats, right: Floats) -> float:
    used = (left + right) > 0
    return float(stats.chi2_contingency([left[used], right[used]], correction=False).statistic)


ORACLES: dict[str, tuple[Callable[..., Floats], Callable[[Floats, Floats], float]]] = {
    "js": (js_distance, lambda a, b: float(jensenshannon(counts(a), counts(b), base=2))),
    "psi": (psi, lambda a, b: jeffreys(counts(a), counts(b))),
    "ks": (ks_statistic, lambda a, b: float(stats.ks_2samp(a, b).statistic)),
    "chi_square": (chi_square, lambda a, b: pearson(counts(a), counts(b))),
    "wasserstein": (wasserstein, lambda a, b: float(stats.wasserstein_distance(a, b))),
    "energy": (energy, lambda a, b: float(stats.energy_distance(a, b))),
    "mmd": (mmd, by_pairs),
}


@pytest.mark.parametrize("name", DISTANCE_NAMES)
@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_it_is_what_an_oracle_says(name: str, sample: int) -> None:
    left, right = SAMPLES[sample]
    measure, oracle = ORACLES[name]
    found = measure(counts(left), counts(right), PLACES)
    assert found == pytest.approx(oracle(left, right), rel=1e-9), name
    assert DISTANCES[name].measure is measure


bins = arrays.arrays(np.float64, (3, 5), elements=st.integers(0, 50).map(float))
places = st.lists(st.floats(-1e100, 1e100), min_size=5, max_size=5, unique=True).map(
    lambda x: np.sort(np.array(x))
)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=lambda one: one.name)
class TestEveryDistance:
    @settings(deadline=None, max_examples=60)
    @given(reference=bins, window=bins, positions=places)
    def test_is_a_number_that_is_never_negative_and_the_same_both_ways(
        self, distance: Distance, reference: Floats, window: Floats, positions: Floats
    ) -> None:
        with np.errstate(all="raise", under="ignore"):
            there = distance.measure(reference, window, positions)
            back = distance.measure(window, reference, positions)
        assert there.shape == (3,)
        assert np.isfinite(there).all() and (there >= 0).all()
        if distance.name != "mmd":  # its kernel is as wide as the first pair of samples asks for
            assert np.allclose(there, back, rtol=1e-6, atol=1e-9)

    def test_is_nothing_between_a_sample_and_itself_and_grows_with_what_moves(
        self, distance: Distance
    ) -> None:
        start = np.array([20.0, 30, 30, 20, 0])
        moved = [np.array([20.0 - k, 30, 30, 20, k]) for k in (0, 2, 5, 10)]
        found = [float(distance.measure(start, one, np.arange(5.0))) for one in moved]
        assert found[0] == pytest.approx(0.0, abs=1e-7)
        assert found == sorted(found) and found[1] > 0

    def test_is_nothing_where_a_side_is_empty(self, distance: Distance) -> None:
        filled, empty = np.array([3.0, 4.0]), np.zeros(2)
        for pair in ((filled, empty), (empty, filled), (empty, empty)):
            assert distance.measure(*pair, np.arange(2.0)) == 0.0
        nothing = np.zeros((4, 0))
        assert distance.measure(nothing, nothing, np.zeros(0)).tolist() == [0.0] * 4


def test_the_features_of_a_kernel_are_as_far_apart_as_the_kernel_says() -> None:
    left, right = GENERATOR.normal(size=(300, 4)), GENERATOR.normal(0.5, 1.0, size=(300, 4))
    features = kernel_features(np.concatenate([left, right]), 4096, seed=1)
    told = float(np.linalg.norm(features[:300].mean(axis=0) - features[300:].mean(axis=0)))
    both = np.concatenate([left, right])
    apart = np.linalg.norm(both[:, None] - both[None, :], axis=-1)
    kernel = np.exp(-((apart / np.median(apart[apart > 0])) ** 2) / 2)
    exact = kernel[:300, :300].mean() + kernel[300:, 300:].mean() - 2 * kernel[:300, 300:].mean()
    assert told == pytest.approx(exact**0.5, rel=0.05)
    again = kernel_features(np.concatenate([right, left]), 4096, seed=1)
    assert np.allclose(again[300:], features[:300]), "the rows' order decides nothing"

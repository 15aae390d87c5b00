"""Whether the statistics keep their word: false alarms, power and coverage in trials whose truth is known.

    python -m benchmarks.calibration [--trials 10000] [--json FILE] [--quick]

A/A trials compare a model with one that is as good, A/B trials with one that is better by a known gain, over several
base rates, correlations of the two models' answers, and item counts; items alone, and in groups of ten that share half
of what makes them hard. A share over 10,000 trials is known to 0.4 points (95 %).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.figures import Figure, parser_of, picture, report
from raytrain.evaluation.statistics.bootstrap import BootstrapMethod, bootstrap_interval
from raytrain.evaluation.statistics.gains import gain_interval, gain_test
from raytrain.evaluation.statistics.means import t_interval
from raytrain.evaluation.statistics.pairs import pair
from raytrain.evaluation.statistics.power import mcnemar_power
from raytrain.evaluation.statistics.proportions import mcnemar_mid_p, tango_interval

LEVEL = 0.05
IN_GROUP = 10
OF_GROUP = 0.5
"""Share of an item's difficulty, and of its luck, that its group decides."""


@dataclass(frozen=True)
class World:
    """A pair of models on a kind of items."""

    num_items: int
    base_rate: float
    correlation: float
    """Between the two models' latent abilities to do an item."""
    gain: float = 0.0

    def joint(self) -> tuple[float, float]:
        """Shares of items that the candidate wins and loses."""
        return _joint(self.base_rate, self.base_rate + self.gain, self.correlation)

    def tables(self, trials: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """(trials, 2): items won and lost."""
        won, lost = self.joint()
        drawn: NDArray[np.int64] = generator.multinomial(
            self.num_items, [won, lost, 1.0 - won - lost], trials
        )
        return drawn[:, :2]

    def grouped(self, generator: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], list[int]]:
        """Scores of both, and the items' groups; the shares of right answers are those of items alone."""
        num_groups = self.num_items // IN_GROUP
        groups = np.repeat(np.arange(num_groups), IN_GROUP)
        covariance = [[1.0, self.correlation], [self.correlation, 1.0]]
        shared = generator.multivariate_normal([0, 0], covariance, num_groups)[groups]
        own = generator.multivariate_normal([0, 0], covariance, len(groups))
        latent = math.sqrt(OF_GROUP) * shared + math.sqrt(1 - OF_GROUP) * own
        limits = stats.norm.isf([self.base_rate, self.base_rate + self.gain])
        right = (latent > limits).astype(float)
        return right[:, 0], right[:, 1], groups.tolist()


@lru_cache
def _joint(before: float, after: float, correlation: float) -> tuple[float, float]:
    limits = [float(stats.norm.ppf(before)), float(stats.norm.ppf(after))]
    both = float(stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf(limits))
    return after - both, before - both


def worlds(gain: float, counts: tuple[int, ...]) -> Iterator[World]:
    for num_items, rate, correlation in itertools.product(counts, (0.2, 0.5, 0.75), (0.3, 0.8)):
        yield World(num_items, rate, correlation, gain)


def of_tables(world: World, trials: int, generator: np.random.Generator) -> dict[str, float]:
    """Shares of trials: called better, called anything but even, interval holds the truth."""
    tables, counts = np.unique(world.tables(trials, generator), axis=0, return_counts=True)
    found = {"better": 0, "significant": 0, "covered": 0}
    for (won, lost), count in zip(tables.tolist(), counts.tolist(), strict=True):
        significant = mcnemar_mid_p(won, lost).p_value <= LEVEL
        interval = tango_interval(won, lost, world.num_items)
        found["significant"] += count * significant
        found["better"] += count * (significant and won > lost)
        found["covered"] += count * (interval.low <= world.gain <= interval.high)
    return {name: number / trials for name, number in found.items()}


def of_groups(world: World, trials: int, generator: np.random.Generator) -> dict[str, float]:
    """The same for items in groups, by the clustered t."""
    found = {"better": 0, "significant": 0, "covered": 0}
    for _ in range(trials):
        pairs = pair(*world.grouped(generator))
        significant = gain_test(pairs).p_value <= LEVEL
        interval = gain_interval(pairs)
        found["significant"] += significant
        found["better"] += significant and pairs.gain > 0
        found["covered"] += interval.low <= world.gain <= interval.high
    return {name: number / trials for name, number in found.items()}


def of_grades(num_items: int, trials: int, generator: np.random.Generator) -> dict[str, float]:
    """Coverage of t and of both bootstraps, for differences that are skewed: a few items gain much."""
    truth = 0.1
    held = {"t": 0, "percentile": 0, "BCa": 0}
    methods: tuple[BootstrapMethod, ...] = ("percentile", "BCa")
    for trial in range(trials):
        differences = generator.exponential(0.3, num_items) - 0.3 + truth
        pairs = pair(np.zeros(num_items), differences)
        interval = t_interval(pairs)
        held["t"] += interval.low <= truth <= interval.high
        for method in methods:
            drawn = bootstrap_interval(pairs, method=method, num_draws=999, seed=trial)
            held[method] += drawn is not None and drawn.low <= truth <= drawn.high
    return {name: number / trials for name, number in held.items()}


def main() -> None:
    parser = parser_of(__doc__, "calibration", quick="2,000 trials of each")
    parser.add_argument("--trials", type=int, default=10_000)
    arguments = parser.parse_args()
    trials = 2_000 if arguments.quick else arguments.trials
    found, cells = measure(arguments, trials)
    save_picture(cells, arguments.json.with_suffix(".png"))
    report(found, f"Simulated trials, {trials:,} of each setting", arguments.json)


def measure(_arguments: argparse.Namespace, trials: int) -> tuple[list[Figure], dict[str, list[float]]]:
    generator = np.random.default_rng(20)
    alone = [of_tables(world, trials, generator) for world in worlds(0.0, (50, 200, 1000))]
    in_groups = [of_groups(world, trials, generator) for world in worlds(0.0, (200, 1000))]
    gaining = list(worlds(0.05, (200, 1000)))
    with_gain = [of_tables(world, trials, generator) for world in gaining]
    grouped_gain = [of_groups(world, trials, generator) for world in worlds(0.05, (200, 1000))]
    power = [
        abs(seen["better"] - mcnemar_power(world.num_items, *world.joint(), LEVEL))
        for world, seen in zip(gaining, with_gain, strict=True)
    ]
    grades = {n: of_grades(n, max(2_000, trials // 5), generator) for n in (50, 200)}
    cells = {
        "items alone: interval": [one["covered"] for one in (*alone, *with_gain)],
        "in groups: interval": [one["covered"] for one in (*in_groups, *grouped_gain)],
        "graded, skewed: t": [grades[n]["t"] for n in grades],
        "graded, skewed: percentile": [grades[n]["percentile"] for n in grades],
        "graded, skewed: BCa": [grades[n]["BCa"] for n in grades],
    }
    figures = [
        *_errors("items alone", alone),
        *_errors("in groups of ten", in_groups),
        Figure(
            "power less what the power function says, largest",
            max(power),
            "share",
            0.02,
            higher_is_better=False,
        ),
    ]
    for name, shares in cells.items():
        figures.append(Figure(f"coverage at 95 %, {name}: mean", float(np.mean(shares)), "share", 0.94))
        figures.append(Figure("… least", min(shares), "share"))
        figures.append(Figure("… most", max(shares), "share"))
    return figures, cells


def _errors(name: str, settings: list[dict[str, float]]) -> list[Figure]:
    better = [one["better"] for one in settings]
    significant = [one["significant"] for one in settings]
    return [
        Figure(
            f"A/A, {name}: called better, mean", float(np.mean(better)), "share", 0.05, higher_is_better=False
        ),
        Figure("… in the worst setting", max(better), "share", 0.05, higher_is_better=False),
        Figure("… called better or worse, mean", float(np.mean(significant)), "share"),
        Figure("… in the worst setting", max(significant), "share"),
    ]


def save_picture(cells: dict[str, list[float]], path: Any) -> None:
    with picture(path, figsize=(8, 0.5 * len(cells) + 1.2)) as axes:
        for i, (_, shares) in enumerate(cells.items()):
            axes.plot(shares, [i] * len(shares), "o", alpha=0.5)
        axes.axvspan(0.94, 0.96, color="tab:green", alpha=0.15)
        axes.set_yticks(range(len(cells)), list(cells))
        axes.set(xlabel="share of intervals that hold the truth, one point a setting", xlim=(0.88, 1.0))


if __name__ == "__main__":
    main()

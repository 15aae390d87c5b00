"""Whether drift is found, and only where there is some: false alarms, detection, and how soon ADWIN sees a change.

    python -m benchmarks.drift [--json FILE] [--quick]

Windows are judged by what `raytrain watch` judges them with, over a dozen features of a table whose columns hang
together: numbers with and without ties, heavy tails, missing values, names common and rare, counts of words, and one
that never varies. Each window has a reference of its own of 10,000 rows: that is the rate that permutations promise.
How far it may lie off where many windows meet one reference is measured beside it.
A share over 1,000 windows is known to 1.4 points (95 %).
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.figures import Figure, parser_of, picture, report
from raytrain.monitoring.drift.calibration import judge_window
from raytrain.monitoring.drift.columns import Column, names, numbers
from raytrain.monitoring.drift.streaming.adwin import Adwin

LEVEL = 0.05
TOLERANCE = 0.014
SIZES = (100, 1_000, 10_000)
REFERENCE_ROWS = 10_000
SHIFTED_ROWS = 500
WORDS = 64
PERMUTATIONS = 199
"""A watch makes 999; of how many there are the rate of false alarms does not depend."""
STEPS_BEFORE = 1_000


def sample(num_rows: int, generator: np.random.Generator, shift: float = 0.0) -> list[Column]:
    """shift: of the first column, in its standard deviations."""
    latent = generator.standard_normal((num_rows, 7)) * 0.7 + generator.standard_normal((num_rows, 1)) * 0.71
    with_gaps = np.where(generator.random(num_rows) < 0.3, np.nan, latent[:, 4])
    topics = np.array([f"topic {i}" for i in range(200)])
    grades = np.array(["low", "middle", "high"])
    counted = generator.poisson(np.exp(latent[:, 6:] * 0.3) * np.linspace(0.01, 0.4, WORDS))
    return [
        numbers("score", latent[:, 0] + shift),
        numbers("other score", latent[:, 1]),
        numbers("length", np.round(np.exp(3 + 0.8 * latent[:, 2]))),
        numbers("seconds", generator.pareto(1.5, num_rows)),
        numbers("words", np.round(np.exp(2 + 0.5 * latent[:, 3]))),
        numbers("approval", np.where(np.isnan(with_gaps), np.nan, with_gaps > 0)),
        numbers("temperature", np.ones(num_rows)),
        names("refusal", np.where(latent[:, 5] > 2.2, "refused", "complied").tolist()),
        names("grade", grades[np.digitize(latent[:, 1], [-0.7, 0.9])].tolist()),
        names("topic", topics[np.minimum(generator.zipf(1.4, num_rows), 200) - 1].tolist()),
        Column("vocabulary", "counts", counted.astype(np.float32)),
    ]


@dataclass(frozen=True)
class Batch:
    """Windows that one process judges, the same whoever does."""

    size: int
    windows: int
    seed: int
    shift: float = 0.0
    one_reference: bool = False


def alarms_in(batch: Batch) -> int:
    """Windows that are an alarm, and where there is a shift name it."""
    generator = np.random.default_rng(batch.seed)
    alarms = 0
    reference: list[Column] = []
    for number in range(batch.windows):
        if not reference or not batch.one_reference:
            reference = sample(REFERENCE_ROWS, generator)
        found = judge_window(
            reference,
            sample(batch.size, generator, batch.shift),
            level=LEVEL,
            permutations=PERMUTATIONS,
            seed=batch.seed + number,
        )
        alarms += found.is_drift and (not batch.shift or "score" in [one.name for one in found.moved])
    return alarms


def share_of_alarms(pool: Executor, windows: int, batch: Batch) -> float:
    """Of so many windows like those of `batch`, in as many batches as they are."""
    seeds = np.random.SeedSequence([batch.seed, batch.size, int(batch.shift * 100)]).generate_state(
        windows // 50
    )
    parts = [replace(batch, windows=50, seed=int(seed)) for seed in seeds]
    return sum(pool.map(alarms_in, parts)) / (50 * len(parts))


def delays(streams: int, generator: np.random.Generator) -> list[float]:
    """Steps from the moment at which accuracy falls from 0.9 to 0.6 until ADWIN says so; those it said before are false
    alarms, after which it goes on."""
    found = []
    for _ in range(streams):
        detector = Adwin()
        for value in (generator.random(STEPS_BEFORE) < 0.9).astype(float):
            detector.update(value)
        after = (generator.random(5_000) < 0.6).astype(float)
        fired = next((i for i, value in enumerate(after, start=1) if detector.update(value)), len(after))
        found.append(float(fired))
    return found


def alarms_per_10_000(streams: int, generator: np.random.Generator) -> float:
    """Of ADWIN where accuracy stays at 0.9."""
    steps = 10_000
    fired = 0
    for _ in range(streams):
        detector = Adwin()
        fired += sum(detector.update(value) for value in (generator.random(steps) < 0.9).astype(float))
    return fired / streams


def main() -> None:
    parser = parser_of(__doc__, "drift", "200 windows of each size, fewer references and streams")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that judge windows")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.workers) as pool:
        figures, curves = measure(pool, quick=arguments.quick)
    save_picture(curves, arguments.json.with_suffix(".png"))
    report(figures, "Drift: windows whose truth is known", arguments.json)


def measure(pool: Executor, *, quick: bool) -> tuple[list[Figure], dict[str, list[tuple[float, float]]]]:
    windows = 200 if quick else 1_000
    figures: list[Figure] = []
    for size in SIZES:
        rate = share_of_alarms(pool, windows, Batch(size, 0, seed=8))
        figures += [
            Figure(f"{size:,} rows: false alarms in {windows:,} windows", rate, "share"),
            # Of fewer windows chance alone would be further off.
            Figure(f"… off {LEVEL:g}", abs(rate - LEVEL), "share", None if quick else TOLERANCE, False),
            Figure("… time of a window, its rows and its reference drawn", seconds_of(size), "s"),
        ]
        print(f"{size:,} rows: {rate:.4f}", flush=True)
    for size in SIZES[:2]:
        figures += of_one_reference(pool, size, 3 if quick else 10)
    curve = []
    for shift in (0.1, 0.2, 0.3, 0.5):
        batch = Batch(SHIFTED_ROWS, 0, seed=9, shift=shift)
        share = share_of_alarms(pool, 50 if quick else 200, batch)
        curve.append((shift, share))
        name = f"shift of {shift:g} sd at {SHIFTED_ROWS} rows: found and named"
        figures.append(Figure(name, share, "share", 0.95 if shift == 0.5 else None))
    waited, told = of_adwin(100 if quick else 500)
    steps = sorted(waited)
    shares = [(step, i / len(steps)) for i, step in enumerate(steps, start=1)]
    return [*figures, *told], {"shift": curve, "delay": shares}


def seconds_of(size: int) -> float:
    """Time of this process for one window, its rows and those of its reference."""
    began = time.process_time()
    alarms_in(Batch(size, 2, seed=1))
    return (time.process_time() - began) / 2


def of_one_reference(pool: Executor, size: int, references: int) -> list[Figure]:
    """The rates of false alarms of several references that 100 windows meet each."""
    windows = 100
    batches = [Batch(size, windows, seed=100 + i, one_reference=True) for i in range(references)]
    rates = [one / windows for one in pool.map(alarms_in, batches)]
    by_luck = (LEVEL * (1 - LEVEL) / windows) ** 0.5
    return [
        Figure(f"{size:,} rows, one reference: rate, mean of {references}", float(np.mean(rates)), "share"),
        Figure("… spread over references", float(np.std(rates, ddof=1)), "share"),
        Figure("… of which luck in counting", by_luck, "share"),
    ]


def of_adwin(streams: int) -> tuple[list[float], list[Figure]]:
    generator = np.random.default_rng(10)
    waited = delays(streams, generator)
    per_10_000 = alarms_per_10_000(streams, generator)
    median, late = float(np.median(waited)), float(np.quantile(waited, 0.95))
    return waited, [
        Figure("ADWIN, accuracy 0.9 to 0.6: steps until seen, median", median, "steps", 200, False),
        Figure("… in 95 % of streams", late, "steps"),
        Figure("ADWIN, accuracy stays: alarms in 10,000 steps", per_10_000, "alarms", 1.0, False),
    ]


def save_picture(curves: dict[str, list[tuple[float, float]]], path: Any) -> None:
    with picture(path, ncols=2, figsize=(9, 3.4)) as (left, right):
        left.plot(*zip(*curves["shift"], strict=True), "o-")
        left.axhline(0.95, color="tab:green", alpha=0.4)
        left.set(xlabel=f"shift in sd, {SHIFTED_ROWS} rows", ylabel="share of windows found", ylim=(0, 1.02))
        right.plot(*zip(*curves["delay"], strict=True))
        right.axvline(200, color="tab:green", alpha=0.4)
        right.set(xlabel="steps after the fall", ylabel="share of streams seen", ylim=(0, 1.02))


if __name__ == "__main__":
    main()

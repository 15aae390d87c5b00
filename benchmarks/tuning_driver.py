"""The driver of a search whose trials are no runs: benchmarks/tuning.py starts this in a process of its own.

    python -m benchmarks.tuning_driver RECIPE OUTPUT

All of `raytrain tune` but the training: Ray Tune and its state on the disk, the searcher, the study and the records in
SQLite, and the looks at trials and budget every few seconds. Each trial reports three times, and leaves a line with the
time and the driver's memory.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Figure
from benchmarks.tuning_trials import run_beside, write_recipe
from raytrain.tuning import search
from raytrain.tuning.spec import load_tune_recipe
from raytrain.tuning.study import TrialMemory
from raytrain.tuning.task import Ended
from raytrain.tuning.trial import TrialContext
from raytrain.tuning.tuner import build_tuner


def driver_of_many(num_trials: int) -> Iterator[Figure]:
    """Whether a search of so many trials stays as quick and as small as it begins."""
    with tempfile.TemporaryDirectory(prefix="raytrain-tuning-") as scratch:
        recipe, output = write_recipe(Path(scratch), num_trials), Path(scratch) / "trials.jsonl"
        run_beside("benchmarks.tuning_driver", recipe, output)
        lines = [json.loads(line) for line in output.read_text().splitlines()]
    seconds = [after["at"] - before["at"] for before, after in itertools.pairwise(lines)]
    first, last = (1000 * statistics.median(some) for some in (seconds[:100], seconds[-100:]))
    yield Figure("driver: a trial, of the first 100", first, "ms")
    yield Figure(f"driver: a trial, of the last 100 of {num_trials:,}", last, "ms")
    yield Figure(
        "driver: more memory at the end than after 100 trials",
        lines[-1]["driver_mb"] - lines[99]["driver_mb"],
        "MB",
        50,
        higher_is_better=False,
    )
    yield Figure(
        "driver: time of a late trial against an early one", last / first, "×", 2.0, higher_is_better=False
    )


# In a process of its own


def run_nothing(config: dict[str, Any], context: TrialContext, driver: int, output: Path) -> None:
    """What Ray Tune starts in place of `run_trial`: a loss at once, by the values."""
    import ray.tune

    os.environ.update(context.environment)
    task = config["task"]
    loss = (math.log10(task.values["train.learning_rate"]) + 2.5) ** 2
    memory = TrialMemory(context.recipe, context.study_name, task.number)
    ended = Ended("complete", objectives=[loss], metrics={"eval/loss": loss}, global_step=12)
    for step in (4, 8, 12):
        ray.tune.report({"state": "running", "global_step": step, "value": loss + 1 / step})
        if memory.report(loss + 1 / step, step):
            ended = Ended("pruned", "others were better", global_step=step)
            break
    line = {
        "number": task.number,
        "at": time.time(),
        "driver_mb": psutil.Process(driver).memory_info().rss / 1e6,
    }
    with output.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    ray.tune.report({"ended": ended})


def main(recipe: Path, output: Path) -> None:
    trainable = partial(run_nothing, driver=os.getpid(), output=output)
    search.build_tuner = partial(build_tuner, trainable=trainable)  # type: ignore[attr-defined]
    search.tune(load_tune_recipe(recipe, None))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

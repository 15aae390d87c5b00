"""The driver of a search without the training: benchmarks/tuning.py starts this in a process of its own.

    python -m benchmarks.tuning_driver NUM_TRIALS

Each trial is suggested, reports three times, and is told, through the searcher that Ray Tune asks and the database that
a search has.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import sys
import time
from typing import Any

from benchmarks.tuning import memory_mb, recipe_of
from raytrain.runs.records import open_records
from raytrain.tuning.searcher import StudySearcher
from raytrain.tuning.study import StudyMemory, TrialMemory
from raytrain.tuning.task import Ended


def main(num_trials: int) -> None:
    open_records()
    recipe = recipe_of(num_trials=num_trials)
    memory = StudyMemory(recipe, "bench")
    searcher = StudySearcher(memory, max_concurrent=1, on_ended=lambda _task, _state: None, on_note=print)
    seconds, after_100 = [], 0.0
    for i in range(num_trials):
        started = time.perf_counter()
        found: Any = searcher.suggest(f"t{i}")
        task = found["task"]
        loss = (math.log10(task.values["train.learning_rate"]) + 2.5) ** 2 + task.values["train.weight_decay"]
        trial = TrialMemory(recipe, "bench", task.number, memory.study._storage)
        ended = Ended("complete", objectives=[loss], metrics={"eval/loss": loss}, global_step=81)
        for step in (3, 9, 27):
            searcher.on_trial_result(
                f"t{i}", {"state": "running", "global_step": step, "value": loss + 1 / step}
            )
            if trial.report(loss + 1 / step, step):
                ended = Ended("pruned", "others were better", global_step=step)
                break
        searcher.on_trial_complete(f"t{i}", {"ended": ended})
        seconds.append(time.perf_counter() - started)
        if i == 99:
            gc.collect()
            after_100 = memory_mb()
    gc.collect()
    told_at_end = {
        "first_ms": 1000 * statistics.median(seconds[:100]),
        "last_ms": 1000 * statistics.median(seconds[-100:]),
        "grown_mb": memory_mb() - after_100,
    }
    print(json.dumps(told_at_end))


if __name__ == "__main__":
    main(int(sys.argv[1]))

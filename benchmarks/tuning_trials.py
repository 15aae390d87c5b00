"""A trial of `raytrain tune` against the training function that it calls; benchmarks/tuning.py asks for it.

    python -m benchmarks.tuning_trials RECIPE OUTPUT

One search, whose trials take turns with the bare function in the same process of Ray Tune's: a trial, then the same
training with the same values by itself; the next time the other way round. What slows the machine down slows both. At
the end of each turn come as many steps of a loop written by hand, without Ray, in that process too.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import Figure, interval_of_median
from raytrain.tuning import search
from raytrain.tuning.spec import load_tune_recipe
from raytrain.tuning.trial import TrialContext, run_trial
from raytrain.tuning.tuner import build_tuner


def overhead(num_trials: int) -> Iterator[Figure]:
    """Trials of a tiny model, one at a time, in turns with the function that they call."""
    with tempfile.TemporaryDirectory(prefix="raytrain-tuning-") as scratch:
        recipe = write_recipe(Path(scratch), num_trials, scheduler="none")
        output = Path(scratch) / "turns.jsonl"
        run_beside("benchmarks.tuning_trials", recipe, output)
        turns = [json.loads(line) for line in output.read_text().splitlines()]
    yield from overhead_of(turns)


def run_beside(module: str, recipe: Path, output: Path) -> None:
    """A search in a process and a home of its own. Raises SystemExit with what it said where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(recipe), str(output)],
        env={
            **os.environ, "RAYTRAIN_HOME": str(recipe.parent / "home"), "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])


def overhead_of(turns: Sequence[dict[str, float]]) -> Iterator[Figure]:
    """A trial takes the time from the begin of its turn to that of the next, less what else was in the turn. The first
    turn is left out: its process has just begun to import things."""
    added, ratios = [], []
    for turn, following in itertools.pairwise(turns[1:]):
        trial = following["began"] - turn["began"] - turn["function"] - turn["by_hand"]
        added.append(trial - turn["function"])
        ratios.append(trial / turn["function"])
    low, high = interval_of_median(ratios)
    yield Figure(
        "the training function alone: starting workers, training, writing its result",
        statistics.median(turn["function"] for turn in turns[1:]), "s",
    )  # fmt: skip
    yield Figure(
        "what a trial adds to it, median", statistics.median(added), "s", 1.0, higher_is_better=False
    )
    yield Figure("a trial ÷ the function alone, median of turns", statistics.median(ratios), "×")
    yield Figure("the same, lower end of the 95 % interval", low, "×")
    yield Figure("the same, upper end of the 95 % interval", high, "×")
    yield Figure(
        "the same steps by hand, without Ray, records and checkpoints",
        statistics.median(turn["by_hand"] for turn in turns[1:]), "s",
    )  # fmt: skip


def write_recipe(folder: Path, num_trials: int, **search: Any) -> Path:
    """Of a tiny model and sixty rows."""
    save_tiny_llama = importlib.import_module("tests.tiny_models").save_tiny_llama
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"question": f"Add {i} and {i}.", "answer": str(2 * i)}) + "\n" for i in range(60))
    )
    recipe = {
        "model": {"base_model": str(save_tiny_llama(folder / "tiny"))},
        "adapter": {"lora_rank": 4},
        "data": {"sources": [str(rows)], "val_fraction": 0.15, "max_seq_len": 64},
        "train": {"max_steps": 12, "eval_every": 4, "global_batch_size": 8},
        "search": {
            "space": {"train.learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}},
            "num_trials": num_trials, "max_concurrent": 1, "probe_steps": 0, **search,
        },
    }  # fmt: skip
    place = folder / "tiny.yaml"
    place.write_text(yaml.safe_dump(recipe))
    return place


# In a process of its own


def take_turns(config: dict[str, Any], context: TrialContext, output: Path) -> None:
    """What Ray Tune starts in place of `run_trial`."""
    began = time.time()
    os.environ.update(context.environment)
    task = config["task"]
    spec = context.recipe.trial_spec(task.values)
    parts = {
        "trial": partial(run_trial, config, context),
        "function": partial(_call_function, spec, f"{task.run_id}-alone"),
    }
    order = list(parts) if task.number % 2 == 0 else list(reversed(parts))
    seconds = {name: _seconds_of(parts[name]) for name in order}
    seconds["by_hand"] = _seconds_of(partial(_loop_by_hand, spec))
    line = {"number": task.number, "began": began, **seconds}
    with output.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def _call_function(spec: Any, run_id: str) -> None:
    from raytrain.training.trainer import train

    train(spec, run_id=run_id)


def _loop_by_hand(spec: Any) -> None:
    import torch

    from benchmarks.bare_loop import BareLoop

    torch.set_num_threads(spec.scaling.threads)
    loop = BareLoop(spec, 0, 1)
    for _ in range(spec.train.max_steps):
        loop.step()


def _seconds_of(part: Callable[[], None]) -> float:
    started = time.perf_counter()
    part()
    return time.perf_counter() - started


def main(recipe: str, output: str) -> None:
    def turns(config: dict[str, Any], context: TrialContext) -> None:
        take_turns(config, context, Path(output))

    search.build_tuner = partial(build_tuner, trainable=turns)  # type: ignore[attr-defined]
    search.tune(load_tune_recipe(Path(recipe), None))


if __name__ == "__main__":
    main(*sys.argv[1:])

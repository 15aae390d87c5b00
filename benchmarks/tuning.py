"""What the default search gives over random search, what it costs a trial, and whether its driver stays as it is.

    python -m benchmarks.tuning [--json FILE] [--quick] [--part steps|overhead|driver]

1. Steps. Both searches have the same budget of optimizer steps: TPE with ASHA, the default, and random values without
   early ends. The objective is a small network of two layers that learns a classification from 384 rows, trained for
   real; its validation loss counts when a trial has made all its steps. Told is the share of the budget after which the
   default has a trial that is as good as the best of random search with all of it.
2. Overhead. A search of real runs on a Ray of its own, in turns with the training function that a trial calls: how much
   longer a trial takes than that function alone.
3. Driver. A search of 1,000 trials that train nothing, on a Ray of its own: does a late trial take longer than an early
   one, and does the driver grow?
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.figures import RESULTS, Figure, interval_of_median, parser_of, picture, report
from benchmarks.tuning_driver import driver_of_many
from benchmarks.tuning_trials import overhead
from raytrain.config.document import Document
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.spec import TuneRecipe, tune_recipe
from raytrain.tuning.study import StudyMemory, TrialMemory
from raytrain.tuning.task import TrialTask

STEPS_PER_TRIAL = 81
EVALUATE_AT = (3, 9, 27, 81)
SPACE: dict[str, Any] = {
    "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
    "train.weight_decay": {"type": "float", "low": 1e-6, "high": 1.0, "log": True},
    "train.max_grad_norm": {"type": "float", "low": 1e-3, "high": 10.0, "log": True},
    "adapter.lora_rank": {"type": "int", "low": 2, "high": 64, "log": True},
}
"""Keys of a recipe, whose values the network takes: `lora_rank` is its width."""


def main() -> None:
    parser = parser_of(
        __doc__, "tuning", "10 seeds in place of 20, and 8 trials in place of 20 for the overhead"
    )
    parser.add_argument("--part", choices=("steps", "overhead", "driver"), help="one of them alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "steps": lambda: steps_to_randoms_best(10 if arguments.quick else 20),
        "overhead": lambda: overhead(8 if arguments.quick else 20),
        "driver": lambda: driver_of_many(1_000),
    }
    figures = [one for name, part in parts.items() if arguments.part in (None, name) for one in part()]
    report(figures, "Searching for good values", arguments.json)


# Steps to random's best


@dataclass(frozen=True)
class Found:
    """The best objective so far, after so many steps of the whole search."""

    steps: int
    best: float


def recipe_of(**search: Any) -> TuneRecipe:
    values: dict[str, Any] = {
        "name": "bench",
        "model": {"base_model": "none"},
        "data": {"sources": ["none.jsonl"]},
        "train": {"eval_every": EVALUATE_AT[0], "max_steps": STEPS_PER_TRIAL},
        "search": {"space": SPACE, "num_trials": 100_000, **search},
    }
    return tune_recipe(Document(values), default_name="bench")


def steps_to_randoms_best(num_seeds: int, num_trials: int = 30) -> Iterator[Figure]:
    """`num_trials` whole trials are the budget."""
    budget = num_trials * STEPS_PER_TRIAL
    shares, curves = [], []
    for seed in range(num_seeds):
        task = Classification(seed)
        random = list(search(recipe_of(sampler="random", scheduler="none", seed=seed), task, budget))
        default = list(search(recipe_of(seed=seed), task, budget))
        wanted = random[-1].best
        reached = next((one.steps for one in default if one.best <= wanted), None)
        shares.append(math.inf if reached is None else reached / budget)
        curves.append((random, default))
        print(f"seed {seed}: random {wanted:.4f}, default {default[-1].best:.4f} after the same steps, "
              f"reached after {shares[-1]:.2f} of them", flush=True)  # fmt: skip
    low, high = interval_of_median(shares)
    better = sum(default[-1].best <= random[-1].best for random, default in curves)
    draw(curves, budget)
    yield Figure("steps to the best of random search, share of its budget, median", finite(statistics.median(shares)),
                 "", 0.5, higher_is_better=False)  # fmt: skip
    yield Figure("the same, lower end of the 95 % interval", finite(low), "")
    yield Figure("the same, upper end of the 95 % interval", finite(high), "")
    yield Figure(f"seeds of {num_seeds} in which the default ends at least as good", float(better), "")


def search(recipe: TuneRecipe, task: Classification, budget: int) -> Iterator[Found]:
    """One search in memory, until its steps are used; a trial that the budget cuts off does not count."""
    import optuna

    storage = optuna.storages.InMemoryStorage()
    memory = StudyMemory(recipe, "bench", storage)
    chooser = Chooser(memory, lambda _text: None)
    used, best = 0, math.inf
    while used < budget:
        trial = chooser.next()
        assert isinstance(trial, TrialTask)
        told = TrialMemory(recipe, "bench", trial.number, storage)
        network = task.network(trial.values)
        for step in range(1, STEPS_PER_TRIAL + 1):
            network.step()
            used += 1
            if step in EVALUATE_AT and step < STEPS_PER_TRIAL and told.report(network.loss(), step):
                memory.tell_pruned(trial.number, "others were better")
                break
        else:
            loss = network.loss()
            memory.tell_complete(trial.number, [loss if math.isfinite(loss) else 1e6])
            if used <= budget:
                best = min(best, loss if math.isfinite(loss) else math.inf)
        yield Found(min(used, budget), best)


class Classification:
    """Rows of five classes that overlap, in twelve dimensions of which four matter; other rows for each seed."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        centres = generator.normal(size=(5, 4)) * 1.2

        def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
            labels = generator.integers(0, 5, count)
            features = generator.normal(size=(count, 12))
            features[:, :4] += centres[labels]
            features[:, 4] *= features[:, 5]
            return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)

        self.train, self.validation = rows(384), rows(512)
        self.seed = seed

    def network(self, values: Any) -> Network:
        return Network(self, values)


class Network:
    """Two layers and AdamW, on batches of 64 rows."""

    def __init__(self, task: Classification, values: Any) -> None:
        torch.manual_seed(task.seed)
        width = values["adapter.lora_rank"]
        self._model = torch.nn.Sequential(
            torch.nn.Linear(12, width), torch.nn.Tanh(), torch.nn.Linear(width, 5)
        )
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(),
            lr=values["train.learning_rate"],
            weight_decay=values["train.weight_decay"],
        )
        self._max_norm = values["train.max_grad_norm"]
        self._task = task
        self._order = torch.Generator().manual_seed(task.seed)

    def step(self) -> None:
        features, labels = self._task.train
        rows = torch.randint(len(labels), (64,), generator=self._order)
        loss = torch.nn.functional.cross_entropy(self._model(features[rows]), labels[rows])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._max_norm)
        self._optimizer.step()

    def loss(self) -> float:
        features, labels = self._task.validation
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(self._model(features), labels))


def finite(share: float) -> float:
    """A search that never gets there is told as twice the budget."""
    return share if math.isfinite(share) else 2.0


def draw(curves: Sequence[tuple[list[Found], list[Found]]], budget: int) -> None:
    with picture(RESULTS / "tuning.png", figsize=(8, 4)) as axes:
        for index, (name, colour) in enumerate((("random", "tab:gray"), ("TPE with ASHA", "tab:blue"))):
            for i, pair in enumerate(curves):
                wanted = pair[0][-1].best
                found = [one for one in pair[index] if math.isfinite(one.best)]
                axes.step(
                    [one.steps / budget for one in found], [one.best - wanted for one in found],
                    where="post", color=colour, alpha=0.5, label=name if i == 0 else None,
                )  # fmt: skip
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_xlabel("share of the step budget")
        axes.set_ylabel("best so far, less random's final best")
        axes.legend()


if __name__ == "__main__":
    main()

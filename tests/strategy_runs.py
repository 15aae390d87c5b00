"""Training under every strategy, for comparison with one process, and with runs that change the strategy midway."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from conftest_training import RecordingChannel, build_test_job
from numpy.typing import NDArray
from strategy_contract import check_contract, new_strategy

from raytrain.data.collators import MicroBatch
from raytrain.models.adapter import trained_state
from raytrain.models.base import ResolvedModel
from raytrain.training.job import Job
from raytrain.training.loop import run_loop
from raytrain.training.strategies.base import Strategy

# Two accumulation steps on two workers, and gradients that are clipped in every step.
_BATCHES = {
    "global_batch_size": 8,
    "micro_batch_size": 2,
    "max_grad_norm": 0.05,
    "save_every": 0,
    "max_steps": 3,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {**_BATCHES, "adapter": {"lora_rank": 4}},
    "full": {**_BATCHES, "adapter": {"method": "full"}, "weight_decay": 0.1},
    "half": {
        **_BATCHES, "adapter": {"lora_rank": 4}, "precision": "bfloat16",
        "learning_rate": 1e-3,
        "model_options": {"dtype": "bfloat16", "gradient_checkpointing": True},
    },
    "lightning": {
        **_BATCHES, "adapter": {"lora_rank": 4},
        "lightning": {"module": "lightning_modules:Chat"},
    },
}  # fmt: skip
"""What is trained under every strategy (build_test_job's options); packed but for the module."""

RESUMED = {"adapter": {"lora_rank": 4, "lora_dropout": 0.2}, "max_steps": 6, "save_every": 0, "eval_every": 2}
"""A run with dropout and evaluations, for bit-equal resumes."""


def whole_weights(job: Job) -> dict[str, torch.Tensor]:
    """*Collective.* The trained weights on rank 0."""
    return job.strategy.whole_tensors(trained_state(job.model))


def train(
    base: ResolvedModel, folder: Path, strategy: Strategy, *, stop_after: int | None = None, **options: Any
) -> dict[str, Any]:
    """*Collective.* Train in `folder`, or go on there: metrics by step, and the weights (on rank 0)."""
    channel = RecordingChannel(stop_after=stop_after)
    job = build_test_job(base, folder, strategy=strategy, channel=channel, **options)
    run_loop(job)
    metrics = {
        one["global_step"]: one["metrics"] for one in channel.of("metrics") if "train/loss" in one["metrics"]
    }
    return {
        "losses": {step: one["train/loss"] for step, one in metrics.items()},
        "grad_norms": {step: one["train/grad_norm"] for step, one in metrics.items()},
        "evaluations": [one["metrics"]["eval/loss"] for one in channel.of("metrics") if "eval/loss" in one["metrics"]],
        "weights": whole_weights(job),
    }  # fmt: skip


def train_in_one_process(base: ResolvedModel, folder: Path) -> dict[str, dict[str, Any]]:
    """What one process makes of every variant."""
    return {
        variant: train(base, folder / variant, new_strategy("single"), **options)
        for variant, options in VARIANTS.items()
    }


def run_suite(rank: int, names: list[str], folder: str, base: ResolvedModel) -> None:
    """On every rank: the contract, every variant, and a run that is stopped and resumed; results to `NAME.pt`."""
    for name in names:
        check_contract(new_strategy(name))
        place = Path(folder) / name
        results = {
            variant: train(base, place / variant, new_strategy(name), **options)
            for variant, options in VARIANTS.items()
        }
        legs, straight = resume_twice(base, place, name)
        if rank == 0:
            torch.save({**results, "straight": straight, "legs": legs}, Path(folder) / f"{name}.pt")


def resume_twice(base: ResolvedModel, place: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """*Collective.* A run in three legs, and the same run straight through."""
    legs = [
        train(base, place / "legs", new_strategy(name), stop_after=stop_after, **RESUMED)
        for stop_after in (1, 2, None)
    ]
    return legs, train(base, place / "straight", new_strategy(name), **RESUMED)


def assert_like_one_process(found: dict[str, Any], one: dict[str, Any], variant: str) -> None:
    """Losses, norms and weights of several workers against one; bfloat16 rounds each sum of rows in its own way."""
    tolerance = 2e-2 if variant == "half" else 1e-5
    assert found["losses"].keys() == one["losses"].keys()
    for kind in ("losses", "grad_norms"):
        for step, value in one[kind].items():
            difference = abs(found[kind][step] - value) / max(1.0, abs(value))
            assert difference < tolerance, (variant, kind, step, found[kind], one[kind])
    assert min(one["grad_norms"].values()) > 2 * 0.05, "clipping is in force"
    assert found["weights"].keys() == one["weights"].keys()
    for name, tensor in one["weights"].items() if variant != "half" else ():
        torch.testing.assert_close(
            found["weights"][name], tensor, atol=1e-5, rtol=1e-4,
            msg=lambda text, name=name: f"{variant} {name}: {text}",
        )  # fmt: skip


def assert_bit_equal(legs: list[dict[str, Any]], straight: dict[str, Any]) -> None:
    """Stopped twice and resumed is straight through, bit for bit."""
    assert [sorted(leg["losses"]) for leg in legs] == [[1], [2, 3], [4, 5, 6]]
    losses = {step: loss for leg in legs for step, loss in leg["losses"].items()}
    assert losses == straight["losses"]
    assert [value for leg in legs for value in leg["evaluations"]] == straight["evaluations"]
    different = [
        name
        for name, tensor in straight["weights"].items()
        if not torch.equal(legs[-1]["weights"][name], tensor)
    ]
    assert different == []


@dataclass
class RecordedRows:
    """A collator that writes down which rows it was given."""

    collate: Any
    rows: list[int]

    def __call__(self, table: Any, rows: NDArray[np.int64], *rest: Any) -> MicroBatch:
        self.rows += [int(row) for row in rows]
        batch: MicroBatch = self.collate(table, rows, *rest)
        return batch


WALKED: dict[str, dict[str, Any]] = {
    method: {
        "adapter": {"method": method}, "save_every": 0, "learning_rate": 1e-3, "num_rows": 40, "num_val_rows": 1,
    }
    for method in ("lora", "full")
}  # fmt: skip
"""The runs that every walk makes a part of: five steps an epoch."""


def make_leg(
    base: ResolvedModel, folder: Path, strategy: Strategy, max_steps: int, method: str
) -> dict[str, Any]:
    """*Collective.* One step further: the step, its loss, and the rows of all ranks (on rank 0)."""
    channel = RecordingChannel(stop_after=1)
    job = build_test_job(
        base, folder, strategy=strategy, channel=channel, max_steps=max_steps, **WALKED[method]
    )
    recorded = RecordedRows(job.collate, [])
    job.collate = recorded
    run_loop(job)
    rows = strategy.gather_on_rank_zero(recorded.rows)
    ((step, loss),) = channel.losses().items()
    return {"step": step, "loss": loss, "rows": sorted(row for part in rows or [] for row in part)}


def walk(rank: int, names: list[str], folder: str, base: ResolvedModel, max_steps: int, method: str) -> None:
    """On every rank: a step under each strategy after the other; `single` is rank 0 alone. Results to `walk.jsonl`."""
    for name in names:
        if name != "single" or rank == 0:
            leg = make_leg(base, Path(folder) / "run", new_strategy(name), max_steps, method)
            if rank == 0:
                with (Path(folder) / "walk.jsonl").open("a") as stream:
                    stream.write(json.dumps({"name": name, **leg}) + "\n")
        torch.distributed.barrier()


def every_pair(names: list[str]) -> list[str]:
    """The shortest walk in which each name comes right after each other one once (Hierholzer 1873)."""
    left = {name: [other for other in names if other != name] for name in names}
    stack, path = [names[0]], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            path.append(stack.pop())
    return path[::-1]

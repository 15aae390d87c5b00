"""The real way from a recipe to a trained model, without Ray: rows are prepared, a Job is built, the loop runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conftest_training import RecordingChannel

from raytrain.data.prepare import prepare_dataset
from raytrain.models.adapter import trained_state
from raytrain.models.base import resolve_base_model
from raytrain.storage.artifact import Artifact
from raytrain.training.job import Job
from raytrain.training.loop import run_loop
from raytrain.training.result import write_result
from raytrain.training.setup import Assignment, build_job
from raytrain.training.spec import RunSpec
from raytrain.training.strategies.base import Strategy
from raytrain.training.strategies.single import SingleProcess


@dataclass
class Trained:
    """A run that has ended."""

    job: Job
    channel: RecordingChannel
    assignment: Assignment

    @property
    def losses(self) -> list[float]:
        return list(self.channel.losses().values())

    @property
    def last_eval(self) -> dict[str, float]:
        return self.job.state.last_eval

    def result(self) -> Artifact:
        """The run's result as an artifact."""
        trained = self.job.strategy.whole_tensors(trained_state(self.job.model))
        return write_result(self.job, self.assignment, self.job.saver.store, trained)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def task_spec(task: str, model: Path, rows: Path, storage: Path, **sections: dict[str, Any]) -> RunSpec:
    """A recipe of a task; `sections` are merged over it."""
    recipe: dict[str, Any] = {
        "name": "task",
        "model": {"base_model": str(model), "task": task},
        "adapter": {"method": "full"},
        "data": {"sources": str(rows), "val_fraction": 0.2, "near_duplicate_threshold": None},
        "train": {
            "max_steps": 40,
            "global_batch_size": 16,
            "micro_batch_size": 8,
            "learning_rate": 3e-3,
            "warmup_steps": 4,
            "save_every": 0,
            "save_every_minutes": None,
        },
        "storage": {"path": str(storage)},
    }
    for section, values in sections.items():
        recipe[section] = {**recipe.get(section, {}), **values}
    return RunSpec.model_validate(recipe)


def assign(spec: RunSpec) -> Assignment:
    """What the driver does before it starts workers."""
    dataset = prepare_dataset(spec.data, spec.storage.location)
    base = resolve_base_model(spec.model, spec.storage.location)
    return Assignment("run", spec, dataset.location, base)


def prepare_job(
    spec: RunSpec, strategy: Strategy | None = None, channel: RecordingChannel | None = None
) -> tuple[Job, Assignment]:
    assignment = assign(spec)
    strategy = strategy or SingleProcess(torch.device("cpu"))
    return build_job(assignment, strategy, channel or RecordingChannel()), assignment


def train_task(spec: RunSpec, on_built: Callable[[Job], None] | None = None) -> Trained:
    """Run a spec from its first step to its last."""
    channel = RecordingChannel()
    job, assignment = prepare_job(spec, channel=channel)
    if on_built is not None:
        on_built(job)
    run_loop(job)
    return Trained(job, channel, assignment)

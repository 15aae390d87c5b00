"""What a checkpoint holds, and how it is taken from and put back into a running worker.

A checkpoint is an artifact of kind `checkpoint`, independent of the strategy and the number of workers that wrote it:
    trained/                adapter (PEFT layout) or model, safetensors
    optimizer.safetensors   `<parameter name>/<entry>`; optimizer.json: the groups
    state.json              step, data position, metrics state, scheduler, scaler, hooks, and what it belongs to
    random.json             generators of every rank
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from raytrain.errors import IntegrityError
from raytrain.models.adapter import load_trained, save_trained, trained_state
from raytrain.storage.artifact import Artifact
from raytrain.training.optimizer import group_names, trainable_parameters
from raytrain.training.strategies.base import Strategy

STATE_FILE = "state.json"
_RANDOM = "random.json"
_OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_GROUPS_FILE = "optimizer.json"
TRAINED_FOLDER = "trained"


@dataclass(frozen=True)
class Belonging:
    """What a checkpoint belongs to; a run that differs in any of it must not resume from it."""

    run_id: str
    base_model_digest: str
    dataset_digest: str
    tokens_digest: str
    adapter: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A consistent copy of a run on the CPU, taken between two steps; nothing in it changes while it is written."""

    model: torch.nn.Module  # its structure only: names, config, ties
    trained: dict[str, torch.Tensor]
    optimizer_tensors: dict[str, torch.Tensor]
    optimizer_groups: list[dict[str, Any]]
    state: dict[str, Any]
    random: list[dict[str, Any]]

    @property
    def global_step(self) -> int:
        return int(self.state["training"]["global_step"])


def take_snapshot(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    strategy: Strategy,
    state: dict[str, Any],
    random: list[dict[str, Any]] | None,
) -> Snapshot | None:
    """*Collective.* Copy weights and optimizer to the CPU of rank 0; None on the others.

    `random` holds the generators of all ranks, in rank order, where it is known: on rank 0.
    """
    parameters = trainable_parameters(model)
    trained = strategy.whole_tensors(trained_state(model))
    entries = strategy.optimizer_tensors(parameters, optimizer)
    if random is None:
        return None
    groups = [
        {key: value for key, value in group.items() if key not in ("params", "param_names")}
        | {"params": names}
        for group, names in zip(optimizer.param_groups, group_names(parameters), strict=True)
    ]
    return Snapshot(model, trained, entries, groups, state, random)


def write_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write the files of a checkpoint into an artifact's staging folder."""
    trained = folder / TRAINED_FOLDER
    trained.mkdir()
    save_trained(snapshot.model, snapshot.trained, trained)
    save_file(snapshot.optimizer_tensors, folder / _OPTIMIZER)
    _write_json(folder / OPTIMIZER_GROUPS_FILE, snapshot.optimizer_groups)
    _write_json(folder / STATE_FILE, snapshot.state)
    _write_json(folder / _RANDOM, snapshot.random)


def read_state(artifact: Artifact) -> dict[str, Any]:
    """The JSON state of a checkpoint."""
    state = json.loads((artifact.path / STATE_FILE).read_text())
    assert isinstance(state, dict)
    return state


def read_random(artifact: Artifact) -> list[dict[str, Any]]:
    """Generators of the ranks that wrote the checkpoint."""
    ranks = json.loads((artifact.path / _RANDOM).read_text())
    assert isinstance(ranks, list)
    return ranks


def restore_weights(
    artifact: Artifact, model: torch.nn.Module, optimizer: torch.optim.Optimizer, strategy: Strategy
) -> None:
    """*Collective.* Put weights and optimizer back bit for bit.

    Raises IntegrityError where the optimizer of the checkpoint has other parameters than this one.
    """
    load_trained(model, artifact.path / TRAINED_FOLDER, strategy.load_tensors)
    parameters = trainable_parameters(model)
    groups = json.loads((artifact.path / OPTIMIZER_GROUPS_FILE).read_text())
    saved = [group["params"] for group in groups]
    present = group_names(parameters)
    if saved != present:
        differing = sorted({name for group in saved for name in group} ^ set(parameters)) or ["their order"]
        raise IntegrityError(
            f"{artifact.location} does not fit this model's optimizer",
            why=f"parameters differ: {', '.join(differing[:3])}",
            fix="resume with the recipe that wrote the checkpoint, or start anew with --fresh",
        )
    strategy.load_optimizer_tensors(parameters, optimizer, load_file(artifact.path / _OPTIMIZER))
    for group, saved_group in zip(optimizer.param_groups, groups, strict=True):
        for key, value in saved_group.items():
            if key != "params":
                group[key] = tuple(value) if isinstance(value, list) else value


def belonging_of(state: dict[str, Any]) -> Belonging:
    return Belonging(**state["belonging"])


def check_belonging(saved: Belonging, now: Belonging, place: str) -> None:
    """Refuse a checkpoint of another run, model or data set; IntegrityError says what differs, was and is."""
    for key, was in asdict(saved).items():
        is_now = asdict(now)[key]
        if was != is_now:
            raise IntegrityError(
                f"{place} belongs to another {key.replace('_', ' ')}",
                why=f"{key}: the checkpoint has {was}, this run has {is_now}",
                fix="restore what changed, or start anew with --fresh; the checkpoint is left as it is",
            )


def check_progress(
    saved: dict[str, Any], *, learning_rate_now: float, optimizer_steps: int | None, place: str
) -> None:
    """The "did it really resume" guard: step, optimizer and learning rate must tell one story.

    `learning_rate_now` is what this run's schedule gives for the saved step; `optimizer_steps` is the optimizer's own
    count, None before its first step. Raises IntegrityError.
    """
    training = saved["training"]
    expected_steps = training["global_step"] - training["num_skipped_steps"]
    if (optimizer_steps or 0) != expected_steps:
        raise IntegrityError(
            f"{place} contradicts itself",
            why=f"it says step {training['global_step']} with {training['num_skipped_steps']} skipped, but its "
            f"optimizer made {optimizer_steps} steps",
            fix="remove this checkpoint, so that the run resumes from the one before it",
        )
    if abs(saved["learning_rate"] - learning_rate_now) > 1e-12 + 1e-9 * abs(saved["learning_rate"]):
        raise IntegrityError(
            f"{place} was written under another learning-rate schedule",
            why=f"next learning rate at step {training['global_step']}: there {saved['learning_rate']:.6g}, "
            f"here {learning_rate_now:.6g}",
            fix="restore learning_rate, schedule, warmup_steps and max_steps (or num_epochs), "
            "or start anew with --fresh",
        )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True))

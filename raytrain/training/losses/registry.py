"""Losses by name: the built-in ones, a user's own under `module:Class`, and any that a module registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raytrain.config.imports import make_named
from raytrain.config.registry import Registry
from raytrain.data.tasks import TaskName
from raytrain.errors import ConfigError
from raytrain.training.losses.base import Loss, LossSetup

LossBuilder = Callable[[LossSetup], Loss]

_OF_TASK: Final[dict[TaskName, str]] = {
    "causal_lm": "causal_lm",
    "sequence_classification": "classification",
    "token_classification": "classification",
    "image_classification": "classification",
    "masked_lm": "masked_lm",
    "seq2seq": "seq2seq",
}

_LOSSES: Registry[LossBuilder] = Registry(
    "loss", "train.loss.name", [f"{__package__}.{name}" for name in dict.fromkeys(_OF_TASK.values())]
)

register_loss = _LOSSES.register
"""Make what follows known as `train.loss.name: NAME`: a function or class that takes a LossSetup and gives a Loss."""

loss_names = _LOSSES.names


def build_loss(setup: LossSetup) -> Loss:
    """The loss that `train.loss` names, or the task's own.

    Raises ConfigError where there is no such loss, or it does not fit the task.
    """
    name = setup.section.name or _OF_TASK[setup.task]
    if ":" in name:
        loss: Loss = make_named(name, setup, key="train.loss.name", takes="a LossSetup and nothing else")
        return loss
    return _LOSSES.find(name)(setup)


def refuse_other_tasks(setup: LossSetup, name: str, tasks: frozenset[TaskName]) -> None:
    """ConfigError where a built-in loss meets a task whose labels it cannot read."""
    if setup.task not in tasks:
        raise ConfigError(
            f"train.loss.name: {name} does not fit model.task: {setup.task}",
            why=f"it reads the labels of {', '.join(sorted(tasks))}",
            fix="leave train.loss.name out: every task has a loss of its own",
        )

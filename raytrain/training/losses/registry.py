"""Losses by name: the built-in ones, a user's own under `module:Class`, and any that a module registers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from raytrain.config.recipe import nearest
from raytrain.data.tasks import TaskName
from raytrain.errors import ConfigError
from raytrain.training.imports import make_named
from raytrain.training.losses.base import Loss, LossSetup

LossBuilder = Callable[[LossSetup], Loss]

_BUILT_IN: Final = ("causal_lm", "classification", "masked_lm", "seq2seq")
"""Modules beside this one; each registers its losses when it is imported."""

_OF_TASK: Final[dict[TaskName, str]] = {
    "causal_lm": "causal_lm",
    "sequence_classification": "classification",
    "token_classification": "classification",
    "image_classification": "classification",
    "masked_lm": "masked_lm",
    "seq2seq": "seq2seq",
}

_registered: dict[str, LossBuilder] = {}


def register_loss(name: str) -> Callable[[LossBuilder], LossBuilder]:
    """Make what follows known as `train.loss.name: NAME`: a function or class that takes a LossSetup and gives a Loss.

    Raises ConfigError where the name is taken or could not be told from `module:Class`.
    """
    if not name or ":" in name:
        raise ConfigError(
            f"a loss cannot be registered as `{name}`",
            why="a colon is for module:Class" if name else "the name is empty",
            fix="choose a plain name",
        )

    def remember(builder: LossBuilder) -> LossBuilder:
        if name in _registered and _registered[name] is not builder:
            taken = _registered[name]
            raise ConfigError(
                f"the loss `{name}` is registered twice",
                why=f"{taken.__module__}.{taken.__qualname__} has this name already",
                fix="choose another name",
            )
        _registered[name] = builder
        return builder

    return remember


def loss_names() -> list[str]:
    """All registered names."""
    for module in _BUILT_IN:
        importlib.import_module(f"{__package__}.{module}")
    return sorted(_registered)


def build_loss(setup: LossSetup) -> Loss:
    """The loss that `train.loss` names, or the task's own.

    Raises ConfigError where there is no such loss, or it does not fit the task.
    """
    name = setup.section.name or _OF_TASK[setup.task]
    if ":" in name:
        loss: Loss = make_named(name, setup, key="train.loss.name", takes="a LossSetup and nothing else")
        return loss
    known = loss_names()
    if name not in _registered:
        near = nearest(name, known)
        raise ConfigError(
            f"train.loss.name: there is no loss `{name}`",
            why=f"registered are: {', '.join(known)}",
            fix=f"did you mean `{near}`?"
            if near
            else "choose one of these, or name your own as module:Class",
        )
    return _registered[name](setup)


def refuse_other_tasks(setup: LossSetup, name: str, tasks: frozenset[TaskName]) -> None:
    """ConfigError where a built-in loss meets a task whose labels it cannot read."""
    if setup.task not in tasks:
        raise ConfigError(
            f"train.loss.name: {name} does not fit model.task: {setup.task}",
            why=f"it reads the labels of {', '.join(sorted(tasks))}",
            fix="leave train.loss.name out: every task has a loss of its own",
        )

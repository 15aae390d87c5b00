"""Proves before the first step that training reaches what it is to train, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from raytrain.errors import TrainingError
from raytrain.training.losses.base import Loss, Objective

_ADAPTER_MARKS = ("lora_", "modules_to_save.")
"""What PEFT puts into the names of parameters that belong to an adapter."""


def check_only_adapter_trains(model: torch.nn.Module) -> None:
    """TrainingError that names a parameter of the frozen base which is set to be trained."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not belongs_to_adapter(name):
            raise TrainingError(
                f"{name} would be trained, and belongs to the base model",
                why="with an adapter only the adapter's parameters and adapter.modules_to_save are trained and saved: "
                "this one's changes would be lost",
                fix="name its module in adapter.modules_to_save, or set adapter.method: full",
            )


def belongs_to_adapter(name: str) -> bool:
    """Whether a parameter's name, as PEFT makes it, is one of an adapter."""
    return any(mark in name for mark in _ADAPTER_MARKS)


def check_gradients_reach_adapter(
    model: torch.nn.Module,
    loss: Loss,
    inputs: dict[str, Any],
    labels: torch.Tensor,
    note: Callable[[str], None],
) -> None:
    """Run one small batch forward and backward, in evaluation mode so that no random number is drawn, and look.

    Called on every rank before the strategy takes the model; weights and generators stay as they are. Raises
    TrainingError that names a base parameter with a gradient, or says that no adapter parameter has one; tells `note`
    of single ones that the batch did not reach.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            total = Objective(model, loss)(inputs, labels)
            if not total.requires_grad:
                raise _unreached("the loss does not depend on any of them")
            total.backward()
        _judge(model, note)
    finally:
        model.train(was_training)
        for parameter in model.parameters():
            parameter.grad = None


def _judge(model: torch.nn.Module, note: Callable[[str], None]) -> None:
    unreached: list[str] = []
    num_reached = 0
    for name, parameter in model.named_parameters():
        has_gradient = parameter.grad is not None
        if has_gradient and not belongs_to_adapter(name):
            raise TrainingError(
                f"{name} gets a gradient, and belongs to the base model",
                why="the loss or the model switched it on during the forward pass",
                fix="leave requires_grad alone in code of your own",
            )
        if parameter.requires_grad:
            num_reached += has_gradient
            if not has_gradient:
                unreached.append(name)
    if unreached and not num_reached:
        raise _unreached(f"{unreached[0]} and {len(unreached) - 1} more are cut off from the loss")
    if unreached:
        note(
            f"{len(unreached)} adapter parameters got no gradient from a first row, {unreached[0]} among them"
        )


def _unreached(why: str) -> TrainingError:
    return TrainingError(
        "no parameter of the adapter gets a gradient",
        why=why,
        fix="compute the loss from the model's output, without detach() or torch.no_grad(); "
        "check adapter.target_modules",
    )

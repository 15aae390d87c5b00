"""AdamW and the learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from raytrain.training.section import TrainSection


def learning_rate_at(step: int, section: TrainSection, max_steps: int) -> float:
    """Learning rate of optimizer step `step` (counted from 0): linear warm-up, then the schedule down to its minimum.

    Cosine: Loshchilov & Hutter 2017, "SGDR", without restarts.
    """
    if step < section.warmup_steps:
        return section.learning_rate * (step + 1) / section.warmup_steps
    if section.schedule == "constant":
        return section.learning_rate
    decay_steps = max(1, max_steps - section.warmup_steps)
    progress = min(1.0, (step - section.warmup_steps) / decay_steps)
    share = 1.0 - progress if section.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return section.min_learning_rate + (section.learning_rate - section.min_learning_rate) * share


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What training changes, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def whole_shape(parameter: torch.Tensor) -> torch.Size:
    """Shape of a parameter, also where ZeRO-3 has emptied it and keeps its shape beside it."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def group_names(parameters: Mapping[str, torch.nn.Parameter]) -> list[list[str]]:
    """The parameter names of each of the optimizer's groups: matrices, which are decayed, then the rest."""
    matrices = [name for name, parameter in parameters.items() if len(whole_shape(parameter)) >= 2]
    others = [name for name, parameter in parameters.items() if len(whole_shape(parameter)) < 2]
    return [group for group in (matrices, others) if group]


def build_optimizer(model: torch.nn.Module, section: TrainSection) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in the model's order; one-dimensional ones are not decayed."""
    parameters = trainable_parameters(model)
    groups = [
        {
            "params": [(name, parameters[name]) for name in names],
            "weight_decay": section.weight_decay if parameters[names[0]].ndim >= 2 else 0.0,
        }
        for names in group_names(parameters)
    ]
    return torch.optim.AdamW(
        groups, lr=section.learning_rate, betas=section.adam_betas, eps=section.adam_epsilon, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate

"""AdamW and the learning-rate schedules."""

from __future__ import annotations

import math

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


def build_optimizer(model: torch.nn.Module, section: TrainSection) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in the model's order; one-dimensional ones are not decayed."""
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [(n, p) for n, p in trainable if p.ndim >= 2], "weight_decay": section.weight_decay},
        {"params": [(n, p) for n, p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=section.learning_rate,
        betas=section.adam_betas,
        eps=section.adam_epsilon,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate

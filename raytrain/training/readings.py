"""What steps were measured by. It stays on the device until somebody wants to know: each look waits for the device.

A GPU is given its work ahead of time; a CPU that reads a number after every micro-batch gives it the next one late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raytrain.training.gradients import GradientNorms


@dataclass(frozen=True)
class UnreadStep:
    """One step as this rank measured it."""

    global_step: int
    loss_weight: float
    loss_sum: torch.Tensor
    """Float64 without dimensions, of this rank's rows."""
    norms: GradientNorms
    loss_scale: torch.Tensor
    """Float16's, after the step; 1 elsewhere."""


@dataclass(frozen=True)
class StepReading:
    """The same, read."""

    global_step: int
    loss_weight: float
    loss_sum: float
    grad_norm: float
    loss_scale: float
    grad_norms: Sequence[float]


def read(steps: list[UnreadStep]) -> list[StepReading]:
    """Empty the list with one look at the device, whatever the number of steps."""
    if not steps:
        return []
    rows = torch.stack(
        [
            torch.cat(
                [
                    torch.stack([one.loss_sum, one.norms.total.double(), one.loss_scale.double()]),
                    one.norms.of_each.double(),
                ]
            )
            for one in steps
        ]
    ).tolist()
    found = [
        StepReading(one.global_step, one.loss_weight, row[0], row[1], row[2], row[3:])
        for one, row in zip(steps, rows, strict=True)
    ]
    steps.clear()
    return found

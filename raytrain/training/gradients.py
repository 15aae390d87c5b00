"""Gradient health and clipping, from one fused pass over the gradients.

The norms that clipping needs anyway tell which layers hold NaN or infinity, so the check costs almost nothing more.
Clipping, and leaving out a step, are decided where the gradients lie; the CPU judges when the norms are read (see
readings.py), so that it need not wait for a GPU at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from raytrain.errors import DivergedError
from raytrain.training.strategies.base import Strategy

Verdict = Literal["healthy", "vanishing", "exploding", "not_finite"]

# Below, an AdamW update is set by adam_epsilon rather than by the gradient.
VANISHING_NORM = 1e-7
# Times the running mean of the run's own norm.
EXPLODING_RATIO = 100.0
_MEAN_DECAY = 0.95


@dataclass(frozen=True)
class GradientHealth:
    """What one step's gradients look like. `layers` names the worst parameters, worst first."""

    grad_norm: float
    verdict: Verdict
    layers: tuple[str, ...] = ()
    num_bad_in_row: int = 0
    """Steps with gradients that are not finite, up to this one."""


@dataclass(frozen=True)
class GradientNorms:
    """Of one step, before clipping; both stay on the device of the gradients."""

    total: torch.Tensor
    """The global norm, float32 without dimensions."""
    of_each: torch.Tensor
    """(parameters,) float32, in the order of the parameters."""

    @property
    def are_bad(self) -> torch.Tensor:
        """Whether any gradient is NaN or infinite: 0 or 1, float32, what fused optimizers call `found_inf`."""
        return torch.isfinite(self.total).logical_not().float()


class GradientCheck:
    """Measures, clips and judges the gradients of a fixed list of parameters.

    Runs on every rank after the gradients were reduced; as all ranks get the same norms, all come to the same verdict
    without asking each other.
    """

    def __init__(
        self,
        named_parameters: Sequence[tuple[str, torch.nn.Parameter]],
        max_grad_norm: float | None,
        strategy: Strategy,
    ) -> None:
        self._names = [name for name, _ in named_parameters]
        self._parameters = [parameter for _, parameter in named_parameters]
        self._max_grad_norm = max_grad_norm
        self._strategy = strategy
        self.mean_norm = 0.0
        self.num_bad_in_row = 0

    def measure_and_clip(self) -> GradientNorms:
        """*Collective.* One norm a parameter; gradients above `max_grad_norm` are scaled down to it in place.

        Nothing is read by the CPU: where there is nothing to clip the factor is 1. Those that are not finite stay so.
        """
        norms = self._strategy.gradient_norms(self._parameters)
        total = torch.linalg.vector_norm(norms)
        if self._max_grad_norm is not None:
            factor = (self._max_grad_norm / (total.double() + 1e-6)).float()
            is_above = (total > self._max_grad_norm) & torch.isfinite(total)
            self._strategy.scale_gradients(self._parameters, torch.where(is_above, factor, 1.0))
        return GradientNorms(total, norms)

    def judge(self, total: float, norms: Sequence[float]) -> GradientHealth:
        """The verdict on a step's norms. Called once a step, in the order of the steps."""
        verdict = judge(total, self.mean_norm)
        if verdict == "not_finite":
            self.num_bad_in_row += 1
            return GradientHealth(total, verdict, self._worst(norms), self.num_bad_in_row)
        self.num_bad_in_row = 0
        layers = self._worst(norms) if verdict == "exploding" else ()
        self.mean_norm = (
            total if self.mean_norm == 0.0 else _MEAN_DECAY * self.mean_norm + (1 - _MEAN_DECAY) * total
        )
        return GradientHealth(total, verdict, layers)

    def _worst(self, norms: Sequence[float], most: int = 5) -> tuple[str, ...]:
        values = [math.inf if not math.isfinite(value) else value for value in norms]
        broken = [name for name, value in zip(self._names, values, strict=True) if value == math.inf]
        ranked = broken or [name for _, name in sorted(zip(values, self._names, strict=True), reverse=True)]
        return tuple(ranked[:most])

    def state_dict(self) -> dict[str, float]:
        return {"mean_norm": self.mean_norm, "num_bad_in_row": self.num_bad_in_row}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean_norm = state["mean_norm"]
        self.num_bad_in_row = int(state["num_bad_in_row"])


def judge(grad_norm: float, mean_norm: float) -> Verdict:
    """Name the state of a step from its global norm and the running mean of those before."""
    if not math.isfinite(grad_norm):
        return "not_finite"
    if grad_norm < VANISHING_NORM:
        return "vanishing"
    if mean_norm > 0.0 and grad_norm > EXPLODING_RATIO * mean_norm:
        return "exploding"
    return "healthy"


def bad_gradients_error(health: GradientHealth, global_step: int) -> DivergedError:
    """What a person is told when the run stops for its gradients."""
    return DivergedError(
        f"NaN or infinite gradients in {health.num_bad_in_row} steps in a row, up to step {global_step}",
        why=f"layers: {', '.join(health.layers)}",
        fix="lower train.learning_rate, add train.warmup_steps, or set train.precision=float32: a new run; "
        "these steps changed no weight, and the same command goes on from the last checkpoint",
    )

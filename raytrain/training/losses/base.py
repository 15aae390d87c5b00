"""What the loop asks of a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from raytrain.data.batches import Examples
from raytrain.data.tasks import TaskName
from raytrain.training.losses.section import LossSection

Phase = Literal["train", "eval"]


TARGET_POSITIONS = "target_positions"
"""Name among the inputs of what is not the model's: see MicroBatch.

A loss sees it whose `takes_target_positions` is true; it takes it out of the inputs, and can do without it."""


class Loss(Protocol):
    """Runs the model on one micro-batch and reduces its answer to a SUM over targets.

    Dividing by the right number is the caller's business: it knows the targets of all micro-batches on all ranks.
    """

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        """Summed loss, float32 without dimensions; zero, with a graph, where every label is ignored."""


@runtime_checkable
class WeighsRows(Protocol):
    """A loss whose sum is not divided by the number of targets."""

    def row_weights(self, table: Examples) -> NDArray[np.float64] | None:
        """What each row adds to the number that the sum is divided by; None = its number of targets."""


@runtime_checkable
class CountsHits(Protocol):
    """A loss that also counts right answers, while the model is in evaluation mode."""

    def take_hits(self) -> tuple[float, float]:
        """(right answers, answers) on this rank since the last call."""


@runtime_checkable
class LogsMetrics(Protocol):
    """A loss that records figures of its own."""

    def take_logged(self, phase: Phase) -> dict[str, float]:
        """Means over this rank's micro-batches since the last call, by the metric's whole name."""


@runtime_checkable
class FollowsSteps(Protocol):
    """A loss that wants to know where the run is."""

    def at(self, global_step: int, epoch: int, batch_index: int) -> None:
        """Called before each micro-batch that is trained; `batch_index` is its number in the epoch, on each worker."""


@dataclass(frozen=True)
class LossSetup:
    """All that a loss may want to know when it is made, on every rank, before the strategy takes the model."""

    task: TaskName
    section: LossSection
    model: torch.nn.Module
    labels: tuple[str, ...] = ()
    """Class names in the order of their numbers; empty where the task has none."""
    holds_whole_model: bool = True
    """See Strategy."""
    class_counts: NDArray[np.int64] | None = None
    """Targets of each class in the training rows."""


class Objective(torch.nn.Module):
    """Model and loss as one module: what a strategy wraps, and what a forward pass runs."""

    def __init__(self, model: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        if not getattr(self.loss, "takes_target_positions", False):
            inputs, _ = take_target_positions(inputs)
        return self.loss(self.model, inputs, labels)


def take_target_positions(inputs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor | None]:
    """The model's own arguments, and the positions of the targets where the collator gave them."""
    own = {name: value for name, value in inputs.items() if name != TARGET_POSITIONS}
    return own, inputs.get(TARGET_POSITIONS)


def row_weights(loss: Loss | None, table: Examples) -> NDArray[np.float64]:
    """What each row adds to the number that summed losses are divided by."""
    weights = loss.row_weights(table) if isinstance(loss, WeighsRows) else None
    return table.num_loss_tokens.astype(np.float64) if weights is None else weights

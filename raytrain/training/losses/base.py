"""What the loop asks of a loss."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Loss(Protocol):
    """Runs the model on one micro-batch and reduces its answer to a SUM over targets.

    Dividing by the right number is the caller's business: it knows the targets of all micro-batches on all ranks.
    """

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        """Summed loss, float32 without dimensions; zero, with a graph, where every label is ignored."""


class Objective(torch.nn.Module):
    """Model and loss as one module: what a strategy wraps, and what a forward pass runs."""

    def __init__(self, model: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        return self.loss(self.model, inputs, labels)

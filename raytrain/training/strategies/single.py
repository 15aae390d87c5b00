"""One process, nothing to exchange."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from raytrain.training.strategies.base import OptimizerBuilder
from raytrain.training.strategies.replicated import Replicated


class SingleProcess(Replicated):
    """The strategy of one worker."""

    world_size = 1
    world_rank = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._objective: torch.nn.Module | None = None

    def wrap(self, objective: torch.nn.Module, build_optimizer: OptimizerBuilder) -> torch.optim.Optimizer:
        self._objective = objective
        return build_optimizer(objective)

    def forward(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        assert self._objective is not None, "wrap comes before forward"
        loss: torch.Tensor = self._objective(inputs, labels)
        return loss

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:  # noqa: ARG002 - nobody to exchange with
        return nullcontext()

    def sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def gather_on_rank_zero(self, value: Any) -> list[Any] | None:
        return [value]

    def broadcast_from_rank_zero(self, value: Any) -> Any:
        return value

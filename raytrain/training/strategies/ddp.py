"""Distributed data parallel: every rank holds the whole model, gradients are averaged once a step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from raytrain.training.strategies.base import OptimizerBuilder
from raytrain.training.strategies.process_group import ProcessGroup
from raytrain.training.strategies.replicated import Replicated


class DistributedDataParallelStrategy(ProcessGroup, Replicated):
    """torch's DDP."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._wrapped: DistributedDataParallel | None = None

    def wrap(self, objective: torch.nn.Module, build_optimizer: OptimizerBuilder) -> torch.optim.Optimizer:
        self._wrapped = DistributedDataParallel(
            objective,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            forward_sync_buffers=False,  # buffers of a language model are constants
            gradient_as_bucket_view=True,  # no second copy of the gradients
        )
        return build_optimizer(objective)

    def forward(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        assert self._wrapped is not None, "wrap comes before forward"
        loss: torch.Tensor = self._wrapped(inputs, labels)
        return loss

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:
        assert self._wrapped is not None, "wrap comes before accumulating"
        return nullcontext() if is_last else self._wrapped.no_sync()

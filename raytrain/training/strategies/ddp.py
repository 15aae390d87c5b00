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
        self._has_settled = self.world_size <= 2  # two numbers have one sum, whatever their order

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
        if not self._has_settled and torch.is_grad_enabled():
            self._settle(self._wrapped, inputs, labels)
        loss: torch.Tensor = self._wrapped(inputs, labels)
        return loss

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:
        assert self._wrapped is not None, "wrap comes before accumulating"
        return nullcontext() if is_last else self._wrapped.no_sync()

    def _settle(self, wrapped: DistributedDataParallel, inputs: dict[str, Any], labels: torch.Tensor) -> None:
        """*Collective.* One micro-batch more, of which nothing stays, before the first of a run or of its resumption.

        DDP lays out its buckets anew after its first exchange, and a number's place in a bucket decides in which order
        the ranks are added up. A resumed run must begin with the layout that the straight run has by then.
        """
        self._has_settled = True
        exchanges = wrapped.require_backward_grad_sync
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            wrapped.require_backward_grad_sync = True
            self.backward(wrapped(inputs, labels) * 0.0)
            wrapped.require_backward_grad_sync = exchanges
        for parameter in wrapped.parameters():
            parameter.grad = None

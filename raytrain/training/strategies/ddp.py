"""Distributed data parallel: every rank holds the whole model, gradients are averaged once a step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel


class DistributedDataParallelStrategy:
    """torch's DDP over the process group that Ray Train (or a test) has set up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.world_size = torch.distributed.get_world_size()
        self.world_rank = torch.distributed.get_rank()
        self._wrapped: DistributedDataParallel | None = None
        # Control values travel over gloo, so that on a GPU they never wait for the device.
        backend = torch.distributed.get_backend()
        self._control = None if backend == "gloo" else torch.distributed.new_group(backend="gloo")

    def wrap(self, model: torch.nn.Module) -> None:
        self._wrapped = DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            forward_sync_buffers=False,  # buffers of a causal LM are constants
            gradient_as_bucket_view=True,  # no second copy of the gradients
        )

    def forward(self, **inputs: torch.Tensor) -> Any:
        assert self._wrapped is not None, "wrap comes before forward"
        return self._wrapped(**inputs)

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:
        assert self._wrapped is not None, "wrap comes before accumulating"
        return nullcontext() if is_last else self._wrapped.no_sync()

    def sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor, group=self._control)
        return [float(value) for value in tensor.tolist()]

    def gather_on_rank_zero(self, value: Any) -> list[Any] | None:
        gathered: list[Any] | None = [None] * self.world_size if self.world_rank == 0 else None
        torch.distributed.gather_object(value, gathered, dst=0, group=self._control)
        return gathered

    def broadcast_from_rank_zero(self, value: Any) -> Any:
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

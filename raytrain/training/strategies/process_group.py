"""What strategies of several processes share: who they are, and how they talk about the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed


class ProcessGroup:
    """The process group that Ray Train (or a test) has set up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.world_size = torch.distributed.get_world_size()
        self.world_rank = torch.distributed.get_rank()
        # Control values travel over gloo, so that on a GPU they never wait for the device.
        backend = torch.distributed.get_backend()
        self._control = None if backend == "gloo" else torch.distributed.new_group(backend="gloo")

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

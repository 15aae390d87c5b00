"""What the loop asks of a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch


class Strategy(Protocol):
    """Joins the ranks of a run. Methods marked *collective* are called by all ranks in the same order."""

    world_size: int
    world_rank: int
    device: torch.device

    def wrap(self, model: torch.nn.Module) -> None:
        """*Collective.* Take the model, which lies on `device`; `forward` then runs it."""

    def forward(self, **inputs: torch.Tensor) -> Any:
        """Run the wrapped model."""

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of one micro-batch; gradients are exchanged in the last one only.

        After the last, every rank's gradient is the mean over the ranks.
        """

    def sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        """*Collective.* Element-wise sum in float64, on the CPU."""

    def gather_on_rank_zero(self, value: Any) -> list[Any] | None:
        """*Collective.* All ranks' values in rank order on rank 0, None elsewhere."""

    def broadcast_from_rank_zero(self, value: Any) -> Any:
        """*Collective.* Rank 0's value on every rank."""

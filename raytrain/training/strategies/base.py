"""What the loop asks of a strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

OptimizerBuilder = Callable[[torch.nn.Module], torch.optim.Optimizer]


class Strategy(Protocol):
    """Joins the ranks of a run. Methods marked *collective* are called by all ranks in the same order.

    A strategy holds weights and optimizer as it likes; what it gives out, and takes back, are whole tensors by
    parameter name, so that a checkpoint knows neither the strategy nor the number of workers that wrote it.
    """

    world_size: int
    world_rank: int
    device: torch.device
    holds_whole_model: bool
    """Whether every rank can read every weight between two steps."""

    def wrap(self, objective: torch.nn.Module, build_optimizer: OptimizerBuilder) -> torch.optim.Optimizer:
        """*Collective.* Take the objective, whose model lies on `device`, and have its optimizer built."""

    def forward(self, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        """Run the objective on one micro-batch of this rank: its summed loss. *Collective* where weights are spread."""

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of one micro-batch; gradients are exchanged in the last one only.

        After the last, every rank's gradient is the mean over the ranks.
        """

    def backward(self, loss: torch.Tensor) -> None:
        """Add to the gradients."""

    def gradient_norms(self, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        """*Collective.* Norm of the whole gradient of each parameter after the last micro-batch, on `device`; equal on
        every rank, 0 where there is none."""

    def scale_gradients(self, parameters: Sequence[torch.nn.Parameter], factor: torch.Tensor) -> None:
        """Multiply all gradients by a number that lies on `device`."""

    def step(self, optimizer: torch.optim.Optimizer, is_bad: torch.Tensor) -> None:
        """*Collective.* Change the weights; nothing, the optimizer's state included, where `is_bad` is 1.

        is_bad: 0 or 1, float32 without dimensions, on `device`, equal on every rank.
        """

    def whole_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """*Collective.* Copies of live parameters and buffers on the CPU on rank 0; nothing on the others."""

    def load_tensors(self, live: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]) -> None:
        """*Collective.* Put `saved`, whole on every rank, into the live tensors of the same names, bit for bit."""

    def optimizer_tensors(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> dict[str, torch.Tensor]:
        """*Collective.* `<parameter name>/<entry>` of the optimizer's state, as `whole_tensors` gives them."""

    def load_optimizer_tensors(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        saved: Mapping[str, torch.Tensor],
    ) -> None:
        """*Collective.* Put back what `optimizer_tensors` gave."""

    def sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        """*Collective.* Element-wise sum in float64, on the CPU."""

    def gather_on_rank_zero(self, value: Any) -> list[Any] | None:
        """*Collective.* All ranks' values in rank order on rank 0, None elsewhere."""

    def broadcast_from_rank_zero(self, value: Any) -> Any:
        """*Collective.* Rank 0's value on every rank."""

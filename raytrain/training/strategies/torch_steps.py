"""What strategies share whose gradients and optimizer are torch's own, on whole tensors or on parts of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch


class TorchSteps(ABC):
    """Gradients come from autograd, and a torch optimizer changes the weights."""

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        scaler.step(optimizer)

    @abstractmethod
    def whole_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See Strategy."""

    def optimizer_tensors(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> dict[str, torch.Tensor]:
        """The optimizer's state as `<parameter name>/<entry>`; none before its first step."""
        return self.whole_tensors(
            {
                f"{name}/{entry}": torch.as_tensor(value)
                for name, parameter in parameters.items()
                for entry, value in optimizer.state.get(parameter, {}).items()
            }
        )

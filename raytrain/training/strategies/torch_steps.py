"""What strategies share whose gradients and optimizer are torch's own, on whole tensors or on parts of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch


def copy_to_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Clones on the CPU; tensors that share memory share it afterwards, so that tied weights stay tied."""
    clones: dict[tuple[Any, ...], torch.Tensor] = {}
    copied = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().nbytes()
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, storage)
        if key not in clones or tensor.numel() == 0:
            clones[key] = tensor.detach().to("cpu", copy=True).contiguous()
        copied[name] = clones[key]
    return copied


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

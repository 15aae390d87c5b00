"""What strategies share in which every rank holds the whole model, its gradients and its optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from raytrain.training.strategies.copies import copy_to_cpu
from raytrain.training.strategies.torch_steps import TorchSteps, norms_of, scale


class Replicated(TorchSteps):
    """Every rank holds everything; what is whole on one is whole on all."""

    world_rank: int
    device: torch.device
    holds_whole_model = True

    def gradient_norms(self, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        return norms_of([parameter.grad for parameter in parameters], self.device).float()

    def scale_gradients(self, parameters: Sequence[torch.nn.Parameter], factor: torch.Tensor) -> None:
        scale([parameter.grad for parameter in parameters], factor)

    def whole_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return copy_to_cpu(tensors) if self.world_rank == 0 else {}

    def load_tensors(self, live: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(saved[name])

    def load_optimizer_tensors(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        saved: Mapping[str, torch.Tensor],
    ) -> None:
        for name, tensor in saved.items():
            parameter_name, _, entry = name.rpartition("/")
            parameter = parameters[parameter_name]
            # AdamW keeps its step count on the CPU unless it is fused on a GPU, its moments beside the parameter.
            device = parameter.device if tensor.ndim > 0 or parameter.is_cuda else tensor.device
            optimizer.state[parameter][entry] = tensor.to(device)

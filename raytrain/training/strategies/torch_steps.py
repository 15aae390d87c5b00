"""What strategies share whose gradients and optimizer are torch's own, on whole tensors or on parts of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch


class TorchSteps(ABC):
    """Gradients come from autograd, and a torch optimizer changes the weights."""

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, is_bad: torch.Tensor) -> None:
        # A fused optimizer looks at this where it runs, as torch's GradScaler has it do: nobody waits for a GPU.
        optimizer.found_inf = is_bad  # type: ignore[attr-defined]
        optimizer.step()

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


def norms_of(gradients: Sequence[torch.Tensor | None], device: torch.device) -> torch.Tensor:
    """The norm of each, 0 where there is none: (gradients,), made without the CPU looking at any."""
    present = [gradient for gradient in gradients if gradient is not None and gradient.numel()]
    if not present:
        return torch.zeros(len(gradients), device=device)
    found = iter(torch._foreach_norm(present))
    none = torch.zeros((), device=device, dtype=present[0].dtype)
    return torch.stack([next(found) if one is not None and one.numel() else none for one in gradients])


def scale(gradients: Sequence[torch.Tensor | None], factor: torch.Tensor) -> None:
    """Multiply in place those that there are."""
    present = [gradient for gradient in gradients if gradient is not None]
    if present:
        torch._foreach_mul_(present, factor)

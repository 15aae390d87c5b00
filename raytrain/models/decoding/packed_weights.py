"""Weights kept a second time as oneDNN lays them out, for as long as a model only reads.

PyTorch's product of float32 rows with a weight goes through MKL, which packs the weight anew each time. oneDNN reads
one that was laid out once, in one form for any number of rows, and a row's outputs do not depend on how many others
there are, from two on. SmolLM2-135M's layers and head on one core of an AMD EPYC with AVX-512 take, with MKL and with
oneDNN, in ms: 47 and 39 for 1 row, 65 and 32 for 4, 90 and 41 for 8, 96 and 58 for 16, 141 and 96 for 32, 233 and 169
for 64, 771 and 650 for 256. Laying all of it out takes a third of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

WORTH_USES = 8
"""After how many products a weight is laid out, which takes about as long as that many with few rows."""
_LEFT_FREE = 0.5
"""Of the memory that is free."""


def can_pack() -> bool:
    """Whether this PyTorch has oneDNN."""
    import torch

    has_it: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_it and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def packed_bytes(model: nn.Module) -> int:
    """That the packed weights of this model take; nearly what the weights themselves do."""
    return sum(module.weight.nbytes for module in _changeable(model)) if can_pack() else 0


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """The model's float32 linear modules on a CPU; they are left as they were. No weight may change meanwhile.

    Where memory is short nothing is packed.
    """
    changed = _changeable(model) if can_pack() and packed_bytes(model) <= _room_bytes() else []
    for module in changed:
        module.forward = partial(_Packed(module).forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


class _Packed:
    """A module, and its weight as oneDNN has it once that is worth it."""

    def __init__(self, module: nn.Linear) -> None:
        self._module, self._num_uses = module, 0
        self._weight: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        import torch

        module = self._module
        if self._weight is None:
            self._num_uses += 1
            if self._num_uses >= WORTH_USES:
                self._weight = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), None)
        if (
            self._weight is None
            or inputs.dtype != torch.float32
            or not inputs.numel()
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
        ):
            return torch.nn.functional.linear(inputs, module.weight, module.bias)
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            inputs, self._weight, module.bias, "none", [], ""
        )


def _changeable(model: nn.Module) -> list[nn.Linear]:
    """Those of float32 on a CPU whose forward may be another one that gives the same."""
    import torch
    from torch import nn

    return [
        module
        for module in model.modules()
        # A subclass may keep its weight in another way; whose forward was set by somebody else keeps it.
        if type(module) is nn.Linear
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
        and "forward" not in vars(module)
    ]


def _room_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available * (1 - _LEFT_FREE))

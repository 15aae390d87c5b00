"""Weights kept a second time as MKL packs them, for the few rows of answers that are written side by side.

MKL's product with a weight's transpose packs the weight anew each time. Packed once, a step of SmolLM2-135M in float32
takes 0.81 to 0.95 of what it takes with few_rows.py for 4 to 16 rows on one core of a 2.5 GHz Xeon (AVX-512), and 0.77
to 0.86 on two. MKL's packed form belongs to one number of rows, so fewer are filled up with zeros, and a row's outputs
do not depend on how many others there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from raytrain.models.decoding.few_rows import changeable_linears, few_rows_linear

if TYPE_CHECKING:
    from torch import Tensor, nn

NUM_ROWS = 16
"""That the packed form is for."""
FEWEST_ROWS = 4
"""From which on it is the faster one."""


def can_pack() -> bool:
    """Whether this PyTorch has MKL."""
    import torch

    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return has_mkl and hasattr(torch.ops.mkl, "_mkl_linear")


def packed_bytes(model: nn.Module) -> int:
    """That the packed weights of this model take; nearly what the weights themselves do."""
    return sum(module.weight.nbytes for module in changeable_linears(model)) if can_pack() else 0


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """The model's float32 linear modules on a CPU; they are left as they were. No weight may change meanwhile."""
    import torch

    changed = changeable_linears(model) if can_pack() else []
    for module in changed:
        packed = torch.ops.mkl._mkl_reorder_linear_weight(module.weight.detach(), NUM_ROWS)
        module.forward = partial(_forward, module, packed)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _forward(module: nn.Linear, packed: Tensor, inputs: Tensor) -> Tensor:
    import torch

    num_rows = inputs.numel() // module.in_features
    if not FEWEST_ROWS <= num_rows <= NUM_ROWS:
        return few_rows_linear(module, inputs)
    rows = inputs.reshape(num_rows, -1)
    if num_rows < NUM_ROWS:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, NUM_ROWS - num_rows))
    outputs = torch.ops.mkl._mkl_linear(rows, packed, module.weight, module.bias, NUM_ROWS)
    return outputs[:num_rows].view(*inputs.shape[:-1], -1)  # type: ignore[no-any-return]

"""Weights kept a second time as oneDNN lays them out, for as long as a model only reads.

PyTorch's product of float32 rows with a weight goes through MKL, which packs the weight anew each time. oneDNN reads
one that was laid out once, in one form for any number of rows. One to three are filled up to four with zeros, which is
the faster, and so a row's outputs do not depend on how many others there are. SmolLM2-135M's layers and head on one
core of an AMD EPYC with AVX-512 take, with MKL and with oneDNN, in ms: 47 and 33 for 1 row, 65 and 32 for 4, 90 and 41
for 8, 96 and 58 for 16, 141 and 96 for 32, 233 and 169 for 64, 771 and 650 for 256. Laying all of it out takes a third
of a second.

Of bfloat16 PyTorch's products go through oneDNN anyhow, which lays the weight out anew each time. The outputs are the
same, bit for bit, where the processor has instructions for them; in ms, without and with: 36 and 22 for 1 row, 38 and
19 for 4, 43 and 24 for 8, 54 and 34 for 16, 73 and 55 for 32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from raytrain.models.machine import free_memory_bytes, has_bfloat16

if TYPE_CHECKING:
    from torch import Tensor, nn

FEWEST_ROWS = 4
_LARGEST_SHARE = 0.5
"""Of the memory that is free."""
_log = logging.getLogger(__name__)


def can_use_onednn() -> bool:
    """Whether this PyTorch has oneDNN."""
    import torch

    has_it: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_it and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def onednn_bytes(model: nn.Module) -> int:
    """That the weights of this model take as oneDNN has them; nearly what they take anyhow."""
    return sum(module.weight.nbytes for module in _changeable(model)) if can_use_onednn() else 0


@contextmanager
def onednn_weights(model: nn.Module) -> Iterator[None]:
    """The model's linear modules on a CPU, of float32 or bfloat16; they are left as they were. No weight may change
    meanwhile.

    Where memory is short they stay as they are as well, and the log says so.
    """
    import torch

    changed = _changeable(model) if can_use_onednn() else []
    wanted, room = sum(one.weight.nbytes for one in changed), _LARGEST_SHARE * free_memory_bytes()
    if wanted > room:
        _log.warning(
            "products take half as long again: oneDNN's form of the weights takes %.0f MiB, and %.0f MiB are spared",
            wanted / 2**20,
            room / 2**20,
        )
        changed = []
    for module in changed:
        weight = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), None)
        module.forward = partial(_forward, module, weight)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _forward(module: nn.Linear, weight: Tensor, inputs: Tensor) -> Tensor:
    """weight: as oneDNN has it."""
    import torch
    from torch.nn import functional

    if (
        inputs.dtype != module.weight.dtype
        or not inputs.numel()
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
    ):
        return functional.linear(inputs, module.weight, module.bias)
    num_rows = inputs.numel() // module.in_features
    rows = inputs
    if num_rows < FEWEST_ROWS:
        rows = functional.pad(inputs.reshape(num_rows, -1), (0, 0, 0, FEWEST_ROWS - num_rows))
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, module.bias, "none", [], "")
    return outputs if rows is inputs else outputs[:num_rows].view(*inputs.shape[:-1], -1)


def _changeable(model: nn.Module) -> list[nn.Linear]:
    """Those on a CPU whose forward may be another one that gives the same."""
    import torch
    from torch import nn

    dtypes = (torch.float32, torch.bfloat16) if has_bfloat16() else (torch.float32,)
    return [
        module
        for module in model.modules()
        # A subclass may keep its weight in another way; whose forward was set by somebody else keeps it.
        if type(module) is nn.Linear
        and module.weight.dtype in dtypes
        and module.weight.device.type == "cpu"
        and "forward" not in vars(module)
    ]

"""Linear modules that read few rows at a time, as answers that are written side by side are, faster on a CPU.

MKL's product of few rows with a weight's transpose repacks the weight each time. The product the other way about, of
the weight with the rows' transpose, reads it as it lies. SmolLM2-135M's layers and head on one core of a 2.5 GHz Xeon
(AVX-512) take, in ms: 61 and 99 for 3 rows, 101 and 95 for 4, 135 and 98 for 8, 168 and 102 for 12, 128 and 104 for 16,
173 and 140 for 32, 242 and 241 for 64. With AVX2 alone it is 14 % less at 8 to 32 rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

FEWEST_ROWS, MOST_ROWS = 5, 48
"""Between which the other way about is the faster one."""


@contextmanager
def few_rows_fast(model: nn.Module) -> Iterator[None]:
    """The model's float32 linear modules on a CPU; they are left as they were."""
    changed = changeable_linears(model)
    for module in changed:
        module.forward = partial(few_rows_linear, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def changeable_linears(model: nn.Module) -> list[nn.Linear]:
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


def few_rows_linear(module: nn.Linear, inputs: Tensor) -> Tensor:
    """What the module's own forward gives."""
    from torch.nn import functional

    num_rows = inputs.numel() // module.in_features
    if not FEWEST_ROWS <= num_rows <= MOST_ROWS:
        return functional.linear(inputs, module.weight, module.bias)
    outputs = turned_product(module, inputs.reshape(num_rows, -1).T.contiguous())
    return outputs.T.contiguous().view(*inputs.shape[:-1], -1)


def turned_product(module: nn.Linear, inputs: Tensor) -> Tensor:
    """Of inputs, (in, rows); the outputs are (out, rows)."""
    outputs = module.weight @ inputs
    return outputs if module.bias is None else outputs.add_(module.bias[:, None])

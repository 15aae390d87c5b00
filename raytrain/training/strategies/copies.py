"""Tensors as a checkpoint wants them."""

from __future__ import annotations

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

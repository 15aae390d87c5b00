"""Mixed precision: which arithmetic the forward pass uses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from raytrain.models.machine import has_bfloat16

COMPUTE_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What matrix products are computed in, by `train.precision`; None = what the weights are held in."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """torch's autocast for `precision`, or nothing for float32."""
    dtype = COMPUTE_DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def build_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaling for float16 (Micikevicius et al. 2018); a scaler that does nothing for the others."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def note_on(device: torch.device, precision: str) -> str | None:
    """What is to be said of a precision that `device` is slow at, if anything."""
    if device.type != "cpu" or precision != "bfloat16" or has_bfloat16():
        return None
    return "this processor has no instructions for bfloat16 and is several times faster with train.precision=float32"

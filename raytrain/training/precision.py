"""Mixed precision: which arithmetic the forward pass uses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

COMPUTE_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What matrix products are computed in, by `train.precision`; None = what the weights are held in."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """torch's autocast for `precision`, or nothing for float32."""
    dtype = COMPUTE_DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def build_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaling for float16 (Micikevicius et al. 2018); a scaler that does nothing for the others."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")

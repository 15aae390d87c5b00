"""The random generators of one rank, as JSON, so that a checkpoint needs no pickle."""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import torch


def capture_random_state() -> dict[str, Any]:
    """State of Python's, NumPy's and torch's generators (and of CUDA's on a GPU) in this process."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [_encode(np.asarray(keys)), int(position), int(has_gauss), float(cached)],
        "torch": _encode(torch.get_rng_state().numpy()),
        "cuda": _encode(torch.cuda.get_rng_state().numpy()) if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators of this process back to what `capture_random_state` saw."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", _decode(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.from_numpy(_decode(state["torch"], np.uint8)))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.from_numpy(_decode(state["cuda"], np.uint8)))


def seed_everything(seed: int, world_rank: int) -> None:
    """Seed all generators; ranks differ, so that dropout does."""
    mixed = (seed * 1_000_003 + world_rank) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def _encode(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _decode(text: str, dtype: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(text), dtype).copy()

"""Random numbers as a pure function of what they are for.

There is no generator whose state a resume would have to restore, and none that depends on which worker asks: the same
seed, epoch and row always draw the same, and another library's release changes nothing.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Purpose = Literal["mask_where", "mask_how", "mask_token", "flip", "crop"]
_STREAMS: dict[Purpose, int] = {"mask_where": 1, "mask_how": 2, "mask_token": 3, "flip": 4, "crop": 5}


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators") of each number.

    Overflow is meant; the caller silences numpy's warning of it.
    """
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(purpose: Purpose, *, seed: int, epoch: int, row: int, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for one row in one epoch; other purposes draw independently."""
    with np.errstate(over="ignore"):
        key = splitmix64(np.array([seed], np.uint64))
        for part in (epoch, row, _STREAMS[purpose]):
            key = splitmix64(key + np.uint64(part))
        bits = splitmix64(np.arange(count, dtype=np.uint64) + key)
    return (bits >> np.uint64(11)).astype(np.float64) / 2.0**53

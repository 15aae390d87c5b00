"""Which split a row belongs to: a function of its content alone, whatever other rows there are."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from raytrain.data.dataset import SPLITS


def split_codes(
    content_hashes: NDArray[np.uint64], *, val_fraction: float, test_fraction: float, salt: str
) -> NDArray[np.int8]:
    """Index into SPLITS for each row of [rows, 2] content hashes."""
    salted = int.from_bytes(hashlib.sha256(salt.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    mixed = content_hashes[:, 1] ^ np.uint64(salted)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    draw = mixed.astype(np.float64) / 2.0**64
    codes = np.full(len(draw), SPLITS.index("train"), np.int8)
    codes[draw < test_fraction + val_fraction] = SPLITS.index("val")
    codes[draw < test_fraction] = SPLITS.index("test")
    return codes

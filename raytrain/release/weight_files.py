"""Safetensors files: their header, the shapes of their tensors, and whether every number in them is finite."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from raytrain.errors import IntegrityError

LONGEST_HEADER_BYTES = 100_000_000
"""As safetensors' own library has it."""
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_EXPONENTS = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
}
"""Of each type the exponent's bits, which are all set in infinities and in what is no number (IEEE 754; bfloat16 is the
upper half of a float32)."""
_CHUNK_BYTES = 2**24

Shapes = dict[str, list[int]]
Pairs = Callable[[list[tuple[str, Any]]], Any]


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: list[int]
    begin: int
    """Its first byte in the file."""
    end: int


def read_header(file: Path, pairs: Pairs = dict) -> tuple[Any, int]:
    """The header's JSON as it stands there, held against nothing, and the byte at which the tensors begin. `pairs`
    makes an object of its keys and values.

    Raises OSError, ValueError, RecursionError or struct.error where no header can be read.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > LONGEST_HEADER_BYTES:
            raise ValueError(f"it says that its header has {length} bytes")
        return json.loads(stream.read(length), object_pairs_hook=pairs), 8 + length


def shapes_in(folder: Path) -> Shapes:
    """Of every tensor in the folder's safetensors files. Raises IntegrityError where there is none, or a file's header
    does not fit its length."""
    found: Shapes = {}
    for file in _files(folder):
        found |= {name: one.shape for name, one in _tensors(file).items()}
    if not found:
        raise unloadable(folder, "it holds no safetensors file")
    return found


def check_finite(folder: Path) -> None:
    """Every safetensors file there can be read to its end, by safetensors' own reader too, and holds finite numbers.

    Raises IntegrityError that names the first tensor which does not.
    """
    for file in _files(folder):
        _check_file(file)


def unloadable(place: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{place} cannot be loaded", why=why, fix="take another version: --to VERSION")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _check_file(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            pass
        with file.open("rb") as stream:
            for name, one in _tensors(file).items():
                if one.dtype in _EXPONENTS and not _is_finite(stream, one):
                    raise unloadable(file, f"{name} holds infinities, or what is no number")
    except (OSError, SafetensorError) as error:
        raise unloadable(file, f"it cannot be read: {type(error).__name__}: {error}") from error


def _is_finite(stream: BinaryIO, tensor: _Tensor) -> bool:
    kind, exponent = _EXPONENTS[tensor.dtype]
    stream.seek(tensor.begin)
    for at in range(tensor.begin, tensor.end, _CHUNK_BYTES):
        numbers = np.frombuffer(stream.read(min(_CHUNK_BYTES, tensor.end - at)), dtype=kind)
        if ((numbers & np.dtype(kind).type(exponent)) == exponent).any():
            return False
    return True


def _tensors(file: Path) -> dict[str, _Tensor]:
    """Every tensor by its name; their bytes lie in the file one after another to its end."""
    found: dict[str, _Tensor] = {}
    try:
        header, first = read_header(file)
        header.pop("__metadata__", None)
        at = 0
        for name, one in sorted(header.items(), key=lambda entry: entry[1]["data_offsets"]):
            begin, end = one["data_offsets"]
            size = _SIZES.get(one["dtype"])
            if begin != at or (size is not None and end - begin != size * math.prod(one["shape"])):
                raise unloadable(
                    file, f"{name} of shape {one['shape']} does not fill the bytes {begin} to {end}"
                )
            at, found[name] = end, _Tensor(one["dtype"], list(one["shape"]), first + begin, first + end)
        left = file.stat().st_size - first - at
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise unloadable(file, f"its header cannot be read: {type(error).__name__}: {error}") from error
    if left:
        raise unloadable(file, f"it has {left} bytes more than its tensors")
    return found

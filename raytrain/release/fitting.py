"""Whether a bundle can stand in for another, and whether its weights load: all are read, and no model is built."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from raytrain.errors import IntegrityError, PlatformError, RefusedError
from raytrain.models.adapter import ADAPTER_CONFIG
from raytrain.models.base import resolve_base_model
from raytrain.models.base_places import place_of_base
from raytrain.models.section import ModelSection
from raytrain.release.bundle.description import FORMAT_FOLDERS, BundleDescription
from raytrain.storage.location import Location

_LONGEST_HEADER = 100_000_000
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LOAD_TIMEOUT_S = 600.0
_EXPONENTS = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
}
"""Of each type the exponent's bits, which are all set in infinities and in what is no number (IEEE 754; bfloat16 is the
upper half of a float32)."""
_CHUNK = 2**24


@dataclass(frozen=True)
class Fit:
    """One thing that two bundles have in common, or not."""

    thing: str
    serving: str
    wanted: str

    @property
    def same(self) -> bool:
        return self.serving == self.wanted


def compatible(serving: BundleDescription, wanted: BundleDescription) -> list[Fit]:
    """What a replica that serves the one must not have to load anew for the other."""
    return [
        Fit("base model", serving.base_model.digest, wanted.base_model.digest),
        Fit("tokenizer", serving.tokenizer, wanted.tokenizer),
        Fit("kind", serving.kind, wanted.kind),
    ]


def refuse_unfit(found: list[Fit], version: str) -> None:
    """Raises RefusedError that shows both digests of what differs."""
    unlike = [one for one in found if not one.same]
    if unlike:
        raise RefusedError(
            f"{version} does not fit what serves now",
            why="; ".join(f"{one.thing}: serving {one.serving}, {version} {one.wanted}" for one in unlike),
            fix="take a version over the same base, or say --other-base: whoever serves must load that one, too",
        )


def check_weights(folder: Path, description: BundleDescription, cache: Location) -> str:
    """Every safetensors file of the bundle's adapter or merged weights can be read to its end and holds finite numbers,
    and an adapter's shapes fit its rank and, where the base model lies on this machine, the modules there. In words,
    what was looked at.

    Raises IntegrityError that names the first tensor which does not fit.
    """
    held = [one for one in ("adapter", "merged") if one in description.formats]
    told = []
    for name in held:
        tensors = _tensors(folder / FORMAT_FOLDERS[name])
        for file in _files(folder / FORMAT_FOLDERS[name]):
            _check_numbers(file)
        told.append(f"{len(tensors)} tensors of {name} were read, all of them finite")
        if name == "adapter":
            told += _check_adapter(folder / FORMAT_FOLDERS[name], tensors, description, cache)
    return "; ".join(told) or f"no weights to look at in {', '.join(description.formats)}"


Shapes = dict[str, list[int]]


def _tensors(folder: Path) -> Shapes:
    found: Shapes = {}
    for file in _files(folder):
        found |= {name: one.shape for name, one in _header(file).items()}
    if not found:
        raise _unfit(folder, "it holds no safetensors file")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: list[int]
    begin: int
    """Its first byte in the file."""
    end: int


def _check_numbers(file: Path) -> None:
    """As safetensors' own reader takes it, and every number finite."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            pass
        with file.open("rb") as stream:
            for name, one in _header(file).items():
                if one.dtype in _EXPONENTS and not _is_finite(stream, one):
                    raise _unfit(file, f"{name} holds infinities, or what is no number")
    except (OSError, SafetensorError) as error:
        raise _unfit(file, f"it cannot be read: {type(error).__name__}: {error}") from error


def _is_finite(stream: BinaryIO, tensor: _Tensor) -> bool:
    kind, exponent = _EXPONENTS[tensor.dtype]
    stream.seek(tensor.begin)
    for at in range(tensor.begin, tensor.end, _CHUNK):
        numbers = np.frombuffer(stream.read(min(_CHUNK, tensor.end - at)), dtype=kind)
        if ((numbers & np.dtype(kind).type(exponent)) == exponent).any():
            return False
    return True


def _header(file: Path) -> dict[str, _Tensor]:
    """Every tensor by its name; their bytes lie in the file one after another to its end."""
    found: dict[str, _Tensor] = {}
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise _unfit(file, f"it says that its header has {length} bytes")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        at = 0
        for name, one in sorted(header.items(), key=lambda entry: entry[1]["data_offsets"]):
            begin, end = one["data_offsets"]
            size = _SIZES.get(one["dtype"])
            if begin != at or (size is not None and end - begin != size * math.prod(one["shape"])):
                raise _unfit(file, f"{name} of shape {one['shape']} does not fill the bytes {begin} to {end}")
            at, found[name] = (
                end,
                _Tensor(one["dtype"], list(one["shape"]), 8 + length + begin, 8 + length + end),
            )
        left = file.stat().st_size - 8 - length - at
    except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise _unfit(file, f"its header cannot be read: {type(error).__name__}: {error}") from error
    if left:
        raise _unfit(file, f"it has {left} bytes more than its tensors")
    return found


def _check_adapter(
    folder: Path, tensors: Shapes, description: BundleDescription, cache: Location
) -> Iterator[str]:
    try:
        rank = int(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unfit(folder / ADAPTER_CONFIG, f"it cannot be read: {error}") from error
    if description.adapter is not None and description.adapter.rank != rank:
        raise _unfit(
            folder / ADAPTER_CONFIG, f"its rank is {rank}, bundle.json says {description.adapter.rank}"
        )
    modules: dict[str, list[int]] = {}
    for name, shape in tensors.items():
        module, is_a, _ = name.partition(".lora_A.")
        if is_a:
            other = tensors.get(f"{module}.lora_B.{name.partition('.lora_A.')[2]}")
            # A rank_pattern may give a module a rank of its own; its two halves must agree all the same.
            if other is None or len(shape) != 2 or len(other) != 2 or other[1] != shape[0]:
                raise _unfit(folder, f"{name} is {shape}, its other half {other}")
            modules[module.removeprefix("base_model.model.")] = [other[0], shape[1]]
    yield f"{len(modules)} modules of rank {rank}"
    yield _check_base(folder, modules, description, cache)


def _check_base(folder: Path, modules: Shapes, description: BundleDescription, cache: Location) -> str:
    base = description.base_model
    try:
        section = ModelSection(base_model=place_of_base(base.reference, base.digest), revision=base.revision)
        found = resolve_base_model(section, cache)
    except PlatformError as error:
        if isinstance(error, IntegrityError):
            raise
        return f"the base model is not on this machine ({base.reference}): shapes are not held against it"
    if found.digest != base.digest:
        raise IntegrityError(
            f"{base.reference} is another base model than {folder} was trained over",
            why=f"here: {found.digest}, trained over: {base.digest}",
            fix="put the base model back that it was trained over",
        )
    shapes = _tensors(Path(found.path))
    for name, shape in modules.items():
        # A base without a head, as many encoders are published, leaves out the name of its body.
        weight = shapes.get(f"{name}.weight") or shapes.get(f"{name.partition('.')[2]}.weight")
        if weight is None:
            raise _unfit(folder, f"the base model has no {name}")
        if sorted(weight) != sorted(shape):
            raise _unfit(folder, f"{name} is for a weight of {shape}, the base model's is {weight}")
    return f"all fit the base model {base.digest[7:19]}"


def load_in_fresh_process(folder: Path, description: BundleDescription, cache: Location) -> str:
    """Load the bundle over its base model in a process of its own, and run one token through it. In words, what came.

    Raises IntegrityError with what that process said where it does not load.
    """
    held = next((one for one in ("adapter", "merged") if one in description.formats), None)
    if held is None:
        raise RefusedError(
            f"{folder} cannot be loaded here",
            why=f"it holds {', '.join(description.formats)}, and neither adapter nor merged",
            fix="raytrain check export loads every format",
        )
    asked = [str(folder / FORMAT_FOLDERS[held]), str(cache), description.dtype]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "raytrain.release.loading", *asked],
            capture_output=True, text=True, timeout=_LOAD_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _unfit(folder, f"it did not load within {_LOAD_TIMEOUT_S:g} s") from error
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise _unfit(folder, f"it does not load: {' '.join(last)}")
    return done.stdout.strip()


def _unfit(place: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{place} cannot be loaded", why=why, fix="take another version: --to VERSION")

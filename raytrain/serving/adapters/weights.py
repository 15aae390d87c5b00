"""An adapter's matrices, as PEFT wrote them, ready for a bank."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.errors import RefusedError
from raytrain.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_tensors
from raytrain.models.heads import saved_labels
from raytrain.models.inference import TRAINING_RECORD

if TYPE_CHECKING:
    import torch

_BEFORE = "base_model.model."
_PLAIN = {"use_dora": False, "bias": "none"}
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_OTHERWISE = "export the format merged as well, and serve that"


@dataclass(frozen=True)
class Matrices:
    """What one module adds: x @ a.T @ b."""

    a: torch.Tensor
    """(rank, inputs); float32."""
    b: torch.Tensor
    """(rank, outputs); float32, the adapter's scale multiplied in."""


@dataclass(frozen=True)
class AdapterWeights:
    """By the names of the base model's modules."""

    modules: dict[str, Matrices]

    @property
    def rank(self) -> int:
        """The largest of any module."""
        return max(len(one.a) for one in self.modules.values())

    @property
    def num_bytes(self) -> int:
        return sum(part.nbytes for one in self.modules.values() for part in (one.a, one.b))


@dataclass(frozen=True)
class ClassifierWeights:
    """An adapter with its head."""

    lora: AdapterWeights
    head: dict[str, torch.Tensor]
    """By the names of transformers' classifier."""
    labels: tuple[str, ...]
    """In the order of their numbers."""

    @property
    def rank(self) -> int:
        """The largest of any module."""
        return self.lora.rank


def read_adapter(folder: Path) -> AdapterWeights:
    """LoRA over linear modules. Raises RefusedError where the adapter is of another kind or holds what is no number,
    IntegrityError where a file is damaged."""
    config = _read_config(folder, {**_PLAIN, "modules_to_save": None})
    return AdapterWeights(_matrices(folder, config, _read_numbers(folder)))


def read_classifier(folder: Path) -> ClassifierWeights:
    """LoRA over linear modules, and a head that was trained whole. Raises as `read_adapter`."""
    config, tensors = _read_config(folder, _PLAIN), _read_numbers(folder)
    saved = tuple(f"{_BEFORE}{one}." for one in config.get("modules_to_save") or ())
    head = {
        name: one for name, one in tensors.items() if name.startswith(saved) and not _TENSOR.fullmatch(name)
    }
    lora = {name: one for name, one in tensors.items() if name not in head}
    return ClassifierWeights(
        AdapterWeights(_matrices(folder, config, lora)),
        {name.removeprefix(_BEFORE): one for name, one in head.items()},
        read_labels(folder),
    )


def read_labels(folder: Path) -> tuple[str, ...]:
    """A classifier's classes, in the order of their numbers: as training noted them, or as transformers did. Raises
    RefusedError where there are none."""
    noted = folder / TRAINING_RECORD
    labels = json.loads(noted.read_text(encoding="utf-8")).get("labels") if noted.is_file() else None
    found = tuple(str(one) for one in labels or ()) or saved_labels(folder)
    if not found:
        raise _refused(
            folder, f"neither {TRAINING_RECORD} nor config.json names its classes", "train it again"
        )
    return found


def _read_numbers(folder: Path) -> dict[str, torch.Tensor]:
    tensors = read_tensors(folder, ADAPTER_WEIGHTS)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise _refused(folder, f"{name} holds what is no number", "train it again")
    return tensors


def _matrices(
    folder: Path, config: dict[str, Any], tensors: Mapping[str, torch.Tensor]
) -> dict[str, Matrices]:
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        found = _TENSOR.fullmatch(name)
        if found is None or tensor.ndim != 2:
            raise _refused(folder, f"{name} is no matrix of LoRA over a linear module")
        sides.setdefault(found["module"], {})[found["side"]] = tensor.float()
    for module, one in sides.items():
        if one.keys() != {"A", "B"} or one["A"].shape[0] != one["B"].shape[1]:
            raise _refused(folder, f"the two matrices of {module} do not belong together")
    return {
        module: Matrices(
            one["A"].contiguous(), (one["B"].T * _scale(config, module, one["A"].shape[0])).contiguous()
        )
        for module, one in sides.items()
    }


def _read_config(folder: Path, plain: Mapping[str, Any]) -> dict[str, Any]:
    """plain: what its settings have to be."""
    config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _refused(folder, f"it is {kind}, and LORA is what can be mixed")
    for key, least in plain.items():
        if config.get(key, least) != least:
            raise _refused(folder, f"{key} is {config[key]!r}, which cannot be mixed with other adapters")
    return config


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """PEFT's: alpha over the rank, or over its root with use_rslora; alpha_pattern names modules with another alpha."""
    from peft.utils.other import get_pattern_key

    pattern: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = float(pattern.get(get_pattern_key(pattern.keys(), module), config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _refused(folder: Path, why: str, fix: str = _OTHERWISE) -> RefusedError:
    return RefusedError(f"the adapter in {folder} cannot be served beside others", why=why, fix=fix)

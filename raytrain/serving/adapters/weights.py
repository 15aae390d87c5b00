"""An adapter's matrices, as PEFT wrote them, ready for a bank."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.errors import RefusedError
from raytrain.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_tensors

if TYPE_CHECKING:
    import torch

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


def read_adapter(folder: Path) -> AdapterWeights:
    """LoRA over linear modules. Raises RefusedError where the adapter is of another kind or holds what is no number,
    IntegrityError where a file is damaged."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    _refuse_other_kinds(folder, config)
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in read_tensors(folder, ADAPTER_WEIGHTS).items():
        found = _TENSOR.fullmatch(name)
        if found is None or tensor.ndim != 2:
            raise _refused(folder, f"{name} is no matrix of LoRA over a linear module")
        if not tensor.isfinite().all():
            raise _refused(folder, f"{name} holds what is no number", "train it again")
        sides.setdefault(found["module"], {})[found["side"]] = tensor.float()
    for module, one in sides.items():
        if one.keys() != {"A", "B"} or one["A"].shape[0] != one["B"].shape[1]:
            raise _refused(folder, f"the two matrices of {module} do not belong together")
    modules = {
        module: Matrices(
            one["A"].contiguous(), (one["B"].T * _scale(config, module, one["A"].shape[0])).contiguous()
        )
        for module, one in sides.items()
    }
    return AdapterWeights(modules)


def _refuse_other_kinds(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _refused(folder, f"it is {kind}, and LORA is what can be mixed")
    for key, least in (("use_dora", False), ("bias", "none"), ("modules_to_save", None)):
        if config.get(key, least) != least:
            raise _refused(folder, f"{key} is {config[key]!r}, which cannot be mixed with other adapters")


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """PEFT's: alpha over the rank, or over its root with use_rslora; alpha_pattern names modules with another alpha."""
    from peft.utils.other import get_pattern_key

    pattern: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = float(pattern.get(get_pattern_key(pattern.keys(), module), config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _refused(folder: Path, why: str, fix: str = _OTHERWISE) -> RefusedError:
    return RefusedError(f"the adapter in {folder} cannot be served beside others", why=why, fix=fix)

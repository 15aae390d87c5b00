"""What a bundle says of itself against the trained model: description, tokenizer, weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, trained_state
from raytrain.models.inference import tokenizer_digest
from raytrain.models.model_files import first_line
from raytrain.models.quiet import quiet_loading
from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.formats.adapter import travelling_config
from raytrain.release.bundle.formats.torch_export import GRAPH_FILE, pickled_parts
from raytrain.release.bundle.subject import Subject
from raytrain.storage.manifest import digest_of, file_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn


def description_faults(stated: BundleDescription, expected: BundleDescription) -> list[str]:
    """Each field of bundle.json that the trained model says otherwise: rank, target modules, base digest, and so on."""
    return [
        f"bundle.json says {name} {_short(one)}, of the trained model it is {_short(other)}"
        for name, one, other in _unlike(asdict(stated), asdict(expected))
    ]


def _unlike(
    one: Mapping[str, Any], other: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(one.keys() | other.keys()):
        first, second = one.get(name), other.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _unlike(first, second, f"{above}{name}.")
        elif first != second:
            yield f"{above}{name}", first, second


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:87]}…"


def folder_faults(folder: Path, form: str, subject: Subject, stated: BundleDescription) -> list[str]:
    """What one format's folder has otherwise than bundle.json or the trained artifact."""
    faults = list(_tokenizer_faults(folder, stated))
    if form == "adapter":
        faults += _adapter_faults(folder, subject, stated)
    if form == "torch_export":
        faults += [f"{GRAPH_FILE} holds a pickle: {name}" for name in pickled_parts(folder / GRAPH_FILE)]
    return faults


def _tokenizer_faults(folder: Path, stated: BundleDescription) -> Iterator[str]:
    from transformers import AutoTokenizer

    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        yield f"its tokenizer cannot be loaded: {first_line(error)}"
        return
    if tokenizer_digest(tokenizer) != stated.tokenizer:
        yield "its tokenizer is another one than the trained model's"
    template = digest_of(tokenizer.chat_template) if tokenizer.chat_template else None
    if template != stated.chat_template:
        yield "its chat template is another one than the trained model's"


def _adapter_faults(folder: Path, subject: Subject, stated: BundleDescription) -> Iterator[str]:
    if file_sha256(folder / ADAPTER_WEIGHTS) != file_sha256(subject.folder / ADAPTER_WEIGHTS):
        yield f"{ADAPTER_WEIGHTS} is not, byte for byte, the one that was trained"
    written = (folder / ADAPTER_CONFIG).read_bytes()
    if written != travelling_config(subject):
        yield f"{ADAPTER_CONFIG} is not the one that was trained"
    config = json.loads(written)
    if stated.adapter is None or config["r"] != stated.adapter.rank:
        yield f"its rank is {config['r']}, bundle.json says {stated.adapter and stated.adapter.rank}"


def weight_faults(folder: Path, merged: nn.Module) -> list[str]:
    """Tensors of a merged model's files that are not base and adapter added up: each by its name, the first five.

    A matrix product may differ by rounding from one machine to another, and by nothing else.
    """
    from safetensors import safe_open

    expected = trained_state(merged)
    faults, seen = [], set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                seen.add(name)
                if name not in expected:
                    faults.append(f"{name} is no tensor of the trained model")
                elif fault := _tensor_fault(opened.get_tensor(name), expected[name]):
                    faults.append(f"{name} {fault}")
    faults += [f"{name} is missing" for name in sorted(expected.keys() - seen)]
    return faults[:5]


def _tensor_fault(found: Tensor, expected: Tensor) -> str | None:
    import torch

    expected = expected.detach().cpu()
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"is {found.dtype} {list(found.shape)}, not {expected.dtype} {list(expected.shape)}"
    if torch.equal(found, expected):
        return None
    apart = (found.double() - expected.double()).abs()
    allowed = 4 * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    if float(apart.max()) <= allowed:
        return None
    place = [int(one) for one in torch.unravel_index(apart.argmax(), apart.shape)]
    return f"differs from base and adapter by {float(apart.max()):.3g} at {place}"

"""The head of a classifier: the one part of a model that may start at random."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.errors import IntegrityError
from raytrain.models.inner import inner_model

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ClassHead:
    """The classes that a model is to tell apart, in the order of their numbers; `seed` draws a new head."""

    labels: tuple[str, ...]
    seed: int = 0

    def config_options(self) -> dict[str, Any]:
        """What `from_pretrained` needs in order to build the head; the names are saved in config.json."""
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {name: number for number, name in enumerate(self.labels)},
            # A head of another number of classes is replaced, not an error.
            "ignore_mismatched_sizes": True,
        }


def is_head(model: nn.Module, name: str) -> bool:
    """Whether a parameter belongs to what a classifier adds to its pre-trained body.

    A pooler lies inside the body of BERT and ViT, but comes with some of their checkpoints only, and is then as new as
    the layer above it.
    """
    return not name.startswith(f"{_body_name(model)}.") or _is_pooler(name)


def _is_pooler(name: str) -> bool:
    return ".pooler." in f".{name}"


def _body_name(model: nn.Module) -> str:
    """The child that holds the pre-trained body: the one that transformers names, else the largest."""
    children = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    named = str(getattr(model, "base_model_prefix", ""))
    return named if named in children else max(children, key=lambda name: children[name])


def settle_head(
    model: nn.Module, head: ClassHead, *, missing: Iterable[str], before: tuple[str, ...], folder: str
) -> None:
    """Leave a head that knows these very classes as it is, and draw any other anew, equally on every rank.

    `missing` are the parameters that the file lacks, or has in another shape; `before` are the classes of the file's
    own head. Raises IntegrityError where something beside the head is missing.
    """
    absent = set(missing)
    for name in sorted(absent):
        if not is_head(model, name):
            raise missing_tensor(folder, name, "a model of the kind that model.task asks for")
    parameters = {name: one for name, one in model.named_parameters() if is_head(model, name)}
    if before != head.labels:
        absent |= {name for name in parameters if not _is_pooler(name)}
    _draw(model, {name: one for name, one in parameters.items() if name in absent}, head.seed)


def _draw(model: nn.Module, parameters: dict[str, nn.Parameter], seed: int) -> None:
    """Matrices from a normal distribution, as BERT's and ViT's own; scales are one and all else zero."""
    import torch

    deviation = float(getattr(getattr(model, "config", None), "initializer_range", None) or 0.02)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in sorted(parameters):
            parameter = parameters[name]
            if parameter.ndim >= 2:
                drawn = torch.randn(parameter.shape, generator=generator) * deviation
                parameter.copy_(drawn)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.fill_(1.0)
            else:
                parameter.zero_()


def missing_tensor(folder: str, name: str, described: str) -> IntegrityError:
    """transformers fills what the file lacks with random numbers and goes on: silent nonsense."""
    return IntegrityError(
        f"the weights in `{folder}` are not whole",
        why=f"{folder} has no tensor {name} of the shape that its config.json states",
        fix=f"fetch the model again, or check that it is {described}",
    )


def head_modules(model: nn.Module) -> list[str]:
    """Names of the modules that make up the head, outermost first, as PEFT's modules_to_save takes them."""
    names: list[str] = []
    for name, _ in model.named_parameters():
        if not is_head(model, name):
            continue
        parts = name.split(".")
        place = parts.index("pooler") + 1 if "pooler" in parts else 1
        module = ".".join(parts[:place])
        if module not in names:
            names.append(module)
    return names


def train_in_float32(model: nn.Module, heads: list[str]) -> None:
    """Hold a head that PEFT trains whole in float32, as the rest of the adapter; its inputs are raised to that.

    In bfloat16 most of AdamW's steps would round to nothing.
    """
    for name, module in model.named_modules():
        copies = getattr(module, "modules_to_save", None)
        if copies is None or "default" not in copies or not any(name.endswith(f".{head}") for head in heads):
            continue
        copies["default"].float()
        copies["default"].register_forward_pre_hook(_raise_inputs)


def _raise_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
    import torch

    return tuple(
        one.float() if isinstance(one, torch.Tensor) and one.is_floating_point() else one for one in inputs
    )


def class_labels(model: nn.Module) -> tuple[str, ...]:
    """The classes that a model tells apart, in the order of their numbers."""
    named = inner_model(model).config.id2label
    return tuple(str(named[number]) for number in sorted(named))


def saved_labels(folder: Path) -> tuple[str, ...]:
    """The classes in the config.json of a model folder; empty where it has none."""
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label") or {}
        return tuple(str(named[number]) for number in sorted(named, key=int))
    except (OSError, ValueError, AttributeError):
        return ()

"""What a model answers, whatever shape it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ModelOutput:
    """`logits` of shape (rows, …, classes); `loss` where the model itself was given labels."""

    logits: Tensor
    loss: Tensor | None = None

    @classmethod
    def from_raw(cls, raw: Any) -> ModelOutput:
        """Read a tensor (the logits), a tuple (the logits first, or a loss without dimensions and then the logits), a
        mapping or a Hugging Face output (by the names `logits` and `loss`).

        Raises TypeError that says what came instead.
        """
        import torch

        if isinstance(raw, ModelOutput):
            return raw
        found: Any
        loss: Any = None
        if isinstance(raw, torch.Tensor):
            found, told = raw, "a single number" if raw.ndim == 0 else "a tensor"
        elif isinstance(raw, Mapping):
            found, loss = raw.get("logits"), raw.get("loss")
            told = f"a mapping with the keys {', '.join(map(str, raw)) or 'none'}"
        elif isinstance(raw, tuple):
            tensors = [one for one in raw if isinstance(one, torch.Tensor)]
            loss = tensors.pop(0) if len(tensors) > 1 and tensors[0].ndim == 0 else None
            found = tensors[0] if tensors else None
            told = f"a tuple of {', '.join(type(one).__name__ for one in raw) or 'nothing'}"
        else:
            found, loss = getattr(raw, "logits", None), getattr(raw, "loss", None)
            told = type(raw).__name__
        if not isinstance(found, torch.Tensor) or found.ndim == 0:
            raise TypeError(
                f"the model answered with {told}, which holds no logits; have its forward return a tensor of logits, "
                "a tuple that begins with it, or an object or mapping with `logits`"
            )
        return cls(found, loss if isinstance(loss, torch.Tensor) else None)

"""Texts as points: the mean of a local model's last hidden states. The only file here that needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.errors import ConfigError
from raytrain.monitoring.drift.features import Embed
from raytrain.storage.location import Location

_AT_ONCE = 16
_MOST_TOKENS = 256


def load_embedder(reference: str, cache: Location) -> Embed:
    """reference: as in `model.base_model`, or an adapter. Texts that are missing or empty lie at the origin."""
    import torch

    from raytrain.models.inference import load_for_inference

    loaded = load_for_inference(reference, cache=cache)
    model, tokenizer = loaded.model, loaded.tokenizer
    tokenizer.padding_side = "right"
    size = int(getattr(model.config, "hidden_size", 0))
    if not size:
        raise ConfigError(
            f"{reference} has no hidden states to embed texts with",
            why="its config tells no hidden_size",
            fix="name a causal language model, or leave embedding_model out",
        )

    def embed(texts: Sequence[str | None]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), size), np.float32)
        filled = [place for place, one in enumerate(texts) if one and one.strip()]
        for start in range(0, len(filled), _AT_ONCE):
            places = filled[start : start + _AT_ONCE]
            batch: Any = tokenizer(
                [texts[place] for place in places],
                return_tensors="pt", padding=True, truncation=True, max_length=_MOST_TOKENS,
            )  # fmt: skip
            with torch.inference_mode():
                told = model(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    output_hidden_states=True,
                )
            states = told.hidden_states[-1].float()
            mask = batch["attention_mask"].unsqueeze(-1).float()
            found[places] = ((states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)).numpy()
        return found

    return embed

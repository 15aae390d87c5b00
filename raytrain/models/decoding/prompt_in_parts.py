"""A long prompt, or one whose beginning is known, read by itself a part at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raytrain.models.decoding.prompt_reading import ReadPrompt
from raytrain.models.decoding.rows import forward, new_cache

if TYPE_CHECKING:
    from transformers import Cache


class PromptInParts:
    """Of a model whose layers keep every token."""

    def __init__(self, model: Any, ids: Sequence[int], begun: tuple[Cache, int] | None = None) -> None:
        """begun: a cache that holds the first tokens already, and how many; at least one is left to read."""
        self._model, self._ids = model, ids
        self._cache, self.num_read = begun or (new_cache(model), 0)

    @property
    def num_left(self) -> int:
        return len(self._ids) - self.num_read

    def read(self, most_tokens: int) -> ReadPrompt | None:
        """The next part; the prompt once all of it is read."""
        import torch

        start, stop = self.num_read, min(len(self._ids), self.num_read + most_tokens)
        device = self._model.device
        positions = torch.arange(start, stop, device=device)
        inputs = {
            "input_ids": torch.tensor([list(self._ids[start:stop])], device=device),
            "position_ids": positions[None],
            # Of four dimensions it is a finished mask to transformers.
            "attention_mask": (torch.arange(stop, device=device) <= positions[:, None])[None, None],
        }
        logits = forward(self._model, self._cache, inputs, 1)[:, -1].float()
        self.num_read = stop
        if self.num_left:
            return None
        return ReadPrompt(self._cache, torch.arange(stop, device=device), logits)

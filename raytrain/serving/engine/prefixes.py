"""What was read of prompts, for prompts that begin alike under the same adapter."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from raytrain.models.decoding.prompt_reading import ReadPrompt
from raytrain.models.decoding.rows import new_cache

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

LEAST_TOKENS = 16
"""Fewer are read again: a prompt that begins alike is read by itself, and not packed with others."""


@dataclass(frozen=True)
class _Kept:
    ids: np.ndarray[tuple[int], np.dtype[np.int64]]
    parts: list[tuple[torch.Tensor, torch.Tensor]]
    """Of each layer keys and values, (1, heads, tokens, size)."""
    num_bytes: int


class Prefixes:
    """Least recently used out first. Keyed by the adapter's digest: another one reads the same tokens otherwise."""

    def __init__(self, model: PreTrainedModel, most_bytes: int) -> None:
        """most_bytes: of keys and values; 0 = nothing is kept."""
        self._model, self._most_bytes = model, most_bytes
        self._kept: OrderedDict[tuple[str | None, bytes], _Kept] = OrderedDict()
        self.num_bytes = 0

    def keep(self, adapter: str | None, ids: Sequence[int], prompt: ReadPrompt) -> None:
        """A copy of what was read of a prompt."""
        tokens = np.asarray(ids, dtype=np.int64)
        key = (adapter, tokens.tobytes())
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        layers = prompt.cache.layers
        size = 2 * len(layers) * layers[0].keys[0, :, 0].nbytes * len(tokens)
        if len(tokens) < LEAST_TOKENS or size > self._most_bytes:
            return
        parts = [
            (one.keys.index_select(2, prompt.places), one.values.index_select(2, prompt.places))
            for one in layers
        ]
        self._kept[key] = _Kept(tokens, parts, size)
        self.num_bytes += size
        while self.num_bytes > self._most_bytes:
            self.num_bytes -= self._kept.popitem(last=False)[1].num_bytes

    def find(self, adapter: str | None, ids: Sequence[int]) -> tuple[Cache, int] | None:
        """A cache with the longest known beginning and its number of tokens; the last token is always read anew, for
        its logits."""
        tokens = np.asarray(ids, dtype=np.int64)
        best, num = None, LEAST_TOKENS - 1
        for key, kept in self._kept.items():
            if key[0] == adapter:
                shared = min(_shared(kept.ids, tokens), len(tokens) - 1)
                if shared > num:
                    best, num = key, shared
        if best is None:
            return None
        self._kept.move_to_end(best)
        cache = new_cache(self._model)
        for layer, (keys, values) in enumerate(self._kept[best].parts):
            cache.update(keys[:, :, :num], values[:, :, :num], layer)
        return cache, num

    def forget(self, adapter: str | None) -> None:
        """Everything that was read under it."""
        for key in [key for key in self._kept if key[0] == adapter]:
            self.num_bytes -= self._kept.pop(key).num_bytes


def _shared(
    one: np.ndarray[tuple[int], np.dtype[np.int64]], other: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> int:
    num = min(len(one), len(other))
    differs = one[:num] != other[:num]
    return int(differs.argmax()) if differs.any() else num

"""Keys and values of rows that come and go: each row has a slot that it fills from the left, and nothing is copied when
a row goes on or leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor


class SlotCache(Cache):  # type: ignore[misc]
    """Of a model whose layers all keep every token. What lies in a slot beyond its row is for `mask` to hide."""

    def __init__(self, num_slots: int, num_tokens: int, most_tokens: int | None = None) -> None:
        """num_tokens: that a slot has room for; it grows where that is too few, to no more than most_tokens."""
        super().__init__(layers=[])
        self.layers: list[_SlotLayer] = []
        self._num_slots, self._num_tokens, self._most_tokens = num_slots, num_tokens, most_tokens
        self._slots_used = self._tokens_used = 0  # within these memory has been written

    def put(self, slot: int, source: Cache, places: Tensor) -> None:
        """Copy a text of which `source`'s only row holds the tokens at these places, (tokens,)."""
        if not self.layers:
            like = [(layer.keys, layer.values) for layer in source.layers]
            self.layers = [_SlotLayer(*both, self._num_slots, self._num_tokens) for both in like]
        length = len(places)
        self._make_room(length)
        self._slots_used = max(self._slots_used, slot + 1)
        for ours, theirs in zip(self.layers, source.layers, strict=True):
            for goal, part in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
                torch.index_select(part[0], 1, places, out=goal[slot, :, :length])
                goal[slot, :, length : self._tokens_used] = 0

    def move(self, start: int, goal: int) -> None:
        """Copy one slot over another."""
        for layer in self.layers:
            for part in (layer.keys, layer.values):
                part[goal, :, : self._tokens_used] = part[start, :, : self._tokens_used]

    def expect(self, lengths: Sequence[int]) -> Tensor:
        """Before one token is read of each row, the first in slot 0: the rows' tokens with it. Returns which of the
        slots' tokens each row sees, (rows, 1, 1, tokens)."""
        self._make_room(max(lengths))
        device = self.layers[0].keys.device
        counts = torch.tensor(lengths, device=device)
        rows = torch.arange(len(lengths), device=device)
        for layer in self.layers:
            layer.expect(rows, counts - 1, max(lengths))
        return (torch.arange(max(lengths), device=device) < counts[:, None])[:, None, None]

    def _make_room(self, num_tokens: int) -> None:
        if num_tokens > self._num_tokens:
            most = 2 * self._num_tokens if self._most_tokens is None else self._most_tokens
            self._num_tokens = max(num_tokens, min(2 * self._num_tokens, most))
            for layer in self.layers:
                layer.grow(self._num_tokens)
        # Hidden or not, what is no number would make all of a slot's attention none. All at once would take memory
        # that most evaluations never use.
        for layer in self.layers:
            for part in (layer.keys, layer.values):
                part[: self._slots_used, :, self._tokens_used : num_tokens] = 0
        self._tokens_used = max(self._tokens_used, num_tokens)


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    def __init__(self, keys: Tensor, values: Tensor, num_slots: int, num_tokens: int) -> None:
        super().__init__()
        self.keys, self.values = (
            torch.zeros(
                (num_slots, one.shape[1], num_tokens, one.shape[3]), dtype=one.dtype, device=one.device
            )
            for one in (keys, values)
        )
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def expect(self, rows: Tensor, places: Tensor, num_tokens: int) -> None:
        self._rows, self._places, self._seen = rows, places, num_tokens

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """key_states, value_states: (rows, heads, 1, size)."""
        num_rows = len(key_states)
        for part, new in ((self.keys, key_states), (self.values, value_states)):
            part[self._rows, :, self._places] = new[:, :, 0]
        return self.keys[:num_rows, :, : self._seen], self.values[:num_rows, :, : self._seen]

    def get_seq_length(self) -> int:
        return self._seen - 1

    def grow(self, num_tokens: int) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty((*old.shape[:2], num_tokens, old.shape[3]))
            new[:, :, : old.shape[2]] = old
            setattr(self, name, new)

"""Rows that are continued side by side, each in a slot of its own; prompts that were read elsewhere may join."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raytrain.models.decoding.prompt_reading import ReadPrompt
from raytrain.models.decoding.rows import Row, forward

if TYPE_CHECKING:
    import torch

    from raytrain.models.decoding.slot_cache import SlotCache

NEW_TOKENS = 64
"""A slot has room for so many at first: most answers are shorter than they may be."""


class SlotRows:
    """Rows come and go at any time; each has the slot of its place."""

    def __init__(
        self,
        model: Any,
        num_slots: int,
        most_new_tokens: int = NEW_TOKENS,
        most_tokens: int | None = None,
        on_forward: Callable[[Sequence[Row]], None] | None = None,
    ) -> None:
        """most_tokens: that a row may come to, with its prompt. `on_forward` is told the rows, in their order in the
        batch, before a token is read of each."""
        self._model, self._num_slots, self._most_tokens = model, num_slots, most_tokens
        self._room = min(NEW_TOKENS, most_new_tokens)
        self._on_forward = on_forward
        self._fresh: dict[int, ReadPrompt] = {}  # of the last rows, which have no slot yet
        self._slots: SlotCache | None = None
        self.rows: list[Row] = []
        self.logits: torch.Tensor

    def join(self, joined: Sequence[tuple[Row, ReadPrompt]]) -> None:
        """After the rows that are there; their logits are the prompts'."""
        import torch

        logits = [self.logits] if self.rows else []
        for row, prompt in joined:
            self._fresh[len(self.rows)] = prompt
            self.rows.append(row)
            logits.append(prompt.logits)
        if joined:
            self.logits = torch.cat(logits)

    def read(self, tokens: Mapping[int, int]) -> None:
        """Go on with the rows at these places, each of which has been given a token; the others leave. Holes are filled
        with the last rows, so that one row is copied for each that leaves."""
        import torch

        settled = [place for place in tokens if place not in self._fresh]
        order = _compact(settled)
        for goal, start in enumerate(order):
            if goal != start:
                self._cache().move(start, goal)
        for place in tokens:
            if place in self._fresh:
                prompt = self._fresh[place]
                self._cache().put(len(order), prompt.cache, prompt.places)
                order.append(place)
        self._fresh.clear()
        self.rows = [self.rows[place] for place in order]
        if not self.rows:
            return
        for row in self.rows:
            row.length += 1
        lengths = [row.length for row in self.rows]
        device = self._model.device
        inputs = {
            "input_ids": torch.tensor([[tokens[place]] for place in order], device=device),
            # Of four dimensions it is a finished mask to transformers.
            "attention_mask": self._cache().expect(lengths),
            "position_ids": torch.tensor(lengths, device=device)[:, None] - 1,
        }
        if self._on_forward is not None:
            self._on_forward(self.rows)
        self.logits = forward(self._model, self._cache(), inputs, 1)[:, -1].float()

    def _cache(self) -> SlotCache:
        from raytrain.models.decoding.slot_cache import SlotCache

        if self._slots is None:
            longest = max(row.length for row in self.rows)
            room = longest + self._room
            if self._most_tokens is not None:
                room = max(longest, min(room, self._most_tokens))
            self._slots = SlotCache(self._num_slots, room, self._most_tokens)
        return self._slots


def _compact(places: Sequence[int]) -> list[int]:
    """Which of these takes each of the first places: most stay where they are, and the last go where none is."""
    kept = set(places)
    last = sorted(place for place in places if place >= len(places))
    return [place if place in kept else last.pop() for place in range(len(places))]

"""Rows whose prompts are read packed, what they share once, and each of which then has a slot of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raytrain.models.decoding.rows import Row, forward, new_cache
from raytrain.models.packed_reading import Reader

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

    from raytrain.models.decoding.slot_cache import SlotCache

_REFILLED = 4
"""A quarter of the places is free before prompts that wait are given them."""

_NEW_TOKENS = 64
"""A slot has room for so many at first: most answers are shorter than they may be."""


@dataclass(frozen=True)
class _ReadPrompt:
    """Where a prompt's tokens stand in the cache of all that were read with it."""

    cache: DynamicCache
    places: torch.Tensor
    logits: torch.Tensor


class PackedRows:
    """Prompts are read in trees, a full pass at a time; each then has a slot of its own, once it goes on."""

    def __init__(
        self, reader: Reader, prompts: Sequence[Sequence[int]], num_places: int, max_new_tokens: int
    ) -> None:
        self._reader, self._prompts = reader, prompts
        self._num_places, self._max_new_tokens = num_places, max_new_tokens
        self._unread = deque(reader.batches(prompts))
        self._waiting: deque[tuple[Row, _ReadPrompt]] = deque()
        self._fresh: dict[int, _ReadPrompt] = {}  # of the last rows, which have no slot yet
        self._slots: SlotCache | None = None
        self.rows: list[Row] = []
        self.logits: torch.Tensor

    def fill(self) -> bool:
        import torch

        room = self._num_places - len(self.rows)
        if room < max(1, self._num_places // _REFILLED) and self.rows:
            return True
        while self._unread and len(self._waiting) < room:
            self._read_next()
        taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        now = time.perf_counter()
        logits = [self.logits] if self.rows else []
        for row, prompt in taken:
            row.began += now
            self._fresh[len(self.rows)] = prompt
            self.rows.append(row)
            logits.append(prompt.logits)
        if taken:
            self.logits = torch.cat(logits)
        return bool(self.rows)

    def read(self, tokens: Mapping[int, int]) -> None:
        """Holes are filled with the last rows, so that one row is copied for each that leaves."""
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
        device = self._reader.model.device
        inputs = {
            "input_ids": torch.tensor([[tokens[place]] for place in order], device=device),
            # Of four dimensions it is a finished mask to transformers.
            "attention_mask": self._cache().expect(lengths),
            "position_ids": torch.tensor(lengths, device=device)[:, None] - 1,
        }
        self.logits = forward(self._reader.model, self._cache(), inputs, 1)[:, -1].float()

    def _cache(self) -> SlotCache:
        from raytrain.models.decoding.slot_cache import SlotCache

        if self._slots is None:
            longest = max(row.length for row in self.rows)
            num_slots = min(self._num_places, len(self._prompts))
            self._slots = SlotCache(num_slots, longest + min(_NEW_TOKENS, self._max_new_tokens))
        return self._slots

    def _read_next(self) -> None:
        import torch

        began = time.perf_counter()
        model, batch = self._reader.model, self._unread.popleft()
        texts = self._reader.lay_out([[self._prompts[i] for i in tree] for tree in batch])
        ends = [path[-1] for path in texts.paths]
        kept = sorted(set(ends))  # once, where several prompts are the same
        row_of = {place: row for row, place in enumerate(kept)}
        cache = new_cache(model)
        kept_places = torch.tensor(kept, device=model.device)
        logits = forward(model, cache, texts.arguments(model.device), kept_places)[0]
        took = time.perf_counter() - began
        is_number = logits.amax(dim=1).isfinite().tolist()
        read = iter(zip(texts.paths, ends, strict=True))
        for tree in batch:
            for number in tree:
                path, end = next(read)
                row = row_of[end]
                if len(tree) > 1 and not is_number[row]:
                    self._unread.append(
                        [[number]]
                    )  # by itself: it may be another's fault, whom a mask only hides
                    continue
                prompt = _ReadPrompt(
                    cache, torch.tensor(path, device=model.device), logits[row].float()[None]
                )
                self._waiting.append((Row(number, -took, len(path)), prompt))


def _compact(places: Sequence[int]) -> list[int]:
    """Which of these takes each of the first places: most stay where they are, and the last go where none is."""
    kept = set(places)
    last = sorted(place for place in places if place >= len(places))
    return [place if place in kept else last.pop() for place in range(len(places))]

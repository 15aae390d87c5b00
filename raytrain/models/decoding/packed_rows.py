"""Prompts that are all known at first: read packed, a full pass at a time, and continued as places get free."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from raytrain.models.decoding.prompt_reading import ReadPrompt, read_trees
from raytrain.models.decoding.rows import Row
from raytrain.models.decoding.slot_rows import SlotRows
from raytrain.models.packed_reading import Reader

_REFILLED = 4
"""A quarter of the places is free before prompts that wait are given them."""


class PackedRows(SlotRows):
    """Prompts are read in trees, a full pass at a time; each then has a slot of its own, once it goes on."""

    def __init__(
        self, reader: Reader, prompts: Sequence[Sequence[int]], num_places: int, max_new_tokens: int
    ) -> None:
        super().__init__(reader.model, min(num_places, len(prompts)), max_new_tokens)
        self._reader, self._prompts, self._num_places = reader, prompts, num_places
        self._unread = deque(reader.batches(prompts))
        self._waiting: deque[tuple[Row, ReadPrompt]] = deque()

    def fill(self) -> bool:
        room = self._num_places - len(self.rows)
        if room < max(1, self._num_places // _REFILLED) and self.rows:
            return True
        while self._unread and len(self._waiting) < room:
            self._read_next()
        taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        now = time.perf_counter()
        for row, _ in taken:
            row.began += now
        self.join(taken)
        return bool(self.rows)

    def _read_next(self) -> None:
        began = time.perf_counter()
        batch = self._unread.popleft()
        read = read_trees(self._reader, [[self._prompts[i] for i in tree] for tree in batch])
        took = time.perf_counter() - began
        for tree, prompts in zip(batch, read, strict=True):
            for number, prompt in zip(tree, prompts, strict=True):
                if prompt is None:
                    self._unread.append([[number]])
                else:
                    self._waiting.append((Row(number, -took, len(prompt.places)), prompt))

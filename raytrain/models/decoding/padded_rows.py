"""Rows that are read side by side with padding on their left, or each by itself, anew for each token."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raytrain.models.decoding.rows import Row, forward, new_cache

if TYPE_CHECKING:
    import torch


class PaddedRows:
    """The longest first; the next are read when the last of these has ended. Padding stands left of a row."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, num_places: int) -> None:
        self._model, self._prompts, self._pad_id, self._num_places = model, prompts, pad_id, num_places
        self._waiting = deque(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)))
        self.rows: list[Row] = []
        self.logits: torch.Tensor

    def fill(self) -> bool:
        numbers = [] if self.rows else [self._waiting.popleft() for _ in range(self._num_waiting())]
        if numbers:
            began = time.perf_counter()
            self.rows = [Row(number, began, len(self._prompts[number])) for number in numbers]
            self._width = max(row.length for row in self.rows)
            self._cache = new_cache(self._model)
            mask = self._mask()
            ids = np.full(mask.shape, self._pad_id)
            ids[mask == 1] = [token for number in numbers for token in self._prompts[number]]
            self._forward(ids, mask, (mask.cumsum(1) - 1).clip(min=0))
        return bool(self.rows)

    def read(self, tokens: Mapping[int, int]) -> None:
        import torch

        is_whole = len(tokens) == len(self.rows)
        self.rows = [self.rows[place] for place in tokens]
        if not self.rows:
            return
        if not is_whole:
            self._cache.batch_select_indices(torch.tensor(list(tokens), device=self._model.device))
        for row in self.rows:
            row.length += 1
        self._width += 1
        positions = np.array([[row.length - 1] for row in self.rows])
        self._forward(np.array([[token] for token in tokens.values()]), self._mask(), positions)

    def _num_waiting(self) -> int:
        return min(self._num_places, len(self._waiting))

    def _mask(self) -> np.ndarray[Any, Any]:
        lengths = np.array([[row.length] for row in self.rows])
        return (np.arange(self._width) >= self._width - lengths).astype(np.int64)

    def _forward(self, *inputs: np.ndarray[Any, Any]) -> None:
        import torch

        names = ("input_ids", "attention_mask", "position_ids")
        self.logits = forward(
            self._model,
            self._cache,
            {
                name: torch.from_numpy(one).to(self._model.device)
                for name, one in zip(names, inputs, strict=True)
            },
            1,
        )[:, -1].float()


class RereadRows:
    """One row after another, of which all is read for each token: nothing is kept that a model might not know of."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._waiting = deque(enumerate(prompts))
        self.rows: list[Row] = []
        self.logits: torch.Tensor

    def fill(self) -> bool:
        if not self.rows and self._waiting:
            number, prompt = self._waiting.popleft()
            self.rows, self._ids = [Row(number, time.perf_counter(), len(prompt))], list(prompt)
            self._read_all()
        return bool(self.rows)

    def read(self, tokens: Mapping[int, int]) -> None:
        self.rows = [self.rows[place] for place in tokens]
        if self.rows:
            self._ids += tokens.values()
            self.rows[0].length += 1
            self._read_all()

    def _read_all(self) -> None:
        import torch

        ids = torch.tensor([self._ids], device=self._model.device)
        self.logits = self._model(input_ids=ids, use_cache=False).logits[:, -1].float()

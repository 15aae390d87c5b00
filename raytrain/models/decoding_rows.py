"""Prompts that are read into a cache, and continued from there side by side."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from raytrain.models.packed_reading import Reader

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

    from raytrain.models.slot_cache import SlotCache

_REFILLED = 4
"""A quarter of the places is free before prompts that wait are given them."""


@dataclass
class Row:
    """A prompt and what has been written after it."""

    number: int
    """Of the prompt."""
    began: float
    """time.perf_counter(), less what reading it had taken until then."""
    length: int
    """Tokens read of it."""


class Rows(Protocol):
    """Rows that are continued side by side."""

    rows: list[Row]
    logits: torch.Tensor
    """(rows, vocabulary) of the token that follows each; float32."""

    def fill(self) -> bool:
        """Take up prompts that wait, as far as there are places for them; whether there is any row now."""
        ...

    def read(self, tokens: Mapping[int, int]) -> None:
        """Go on with the rows at these places of `rows`, each of which has been given a token; the others leave."""
        ...


def rows_of(
    reader: Reader, prompts: Sequence[Sequence[int]], pad_id: int, num_places: int, max_new_tokens: int
) -> Rows:
    """As the model allows: packed prompts take no padding and read what they share once, and a freed place is taken by
    the next."""
    if reader.can_share and _keeps_all(_new_cache(reader.model)):
        return _PackedRows(reader, prompts, num_places, max_new_tokens)
    return _PaddedRows(reader.model, prompts, pad_id, num_places)


def likeliest(logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """The likeliest next token of each row, the first of equals, and its lead over the next; NaN where the greatest is
    no number."""
    values, _ = logits.topk(2, dim=1)  # NaN counts as the greatest
    leads = (values[:, 0] - values[:, 1]).where(values[:, 0].isfinite(), math.nan)
    return logits.argmax(dim=1).tolist(), leads.tolist()


def _new_cache(model: Any) -> DynamicCache:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _keeps_all(cache: DynamicCache) -> bool:
    """Whether each token's keys and values stand in the cache by themselves: a sliding window drops some, and a
    recurrent state is of all that was read."""
    from transformers.cache_utils import DynamicLayer

    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)


class _PaddedRows:
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
            self._cache = _new_cache(self._model)
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
        self.logits = _forward(
            self._model,
            self._cache,
            {
                name: torch.from_numpy(one).to(self._model.device)
                for name, one in zip(names, inputs, strict=True)
            },
            1,
        )[:, -1].float()


@dataclass(frozen=True)
class _ReadPrompt:
    """Where a prompt's tokens stand in the cache of all that were read with it."""

    cache: DynamicCache
    places: torch.Tensor
    logits: torch.Tensor


class _PackedRows:
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
        self.logits = _forward(self._reader.model, self._cache(), inputs, 1)[:, -1].float()

    def _cache(self) -> SlotCache:
        from raytrain.models.slot_cache import SlotCache

        if self._slots is None:
            longest = max(row.length for row in self.rows)
            self._slots = SlotCache(self._num_places, longest + self._max_new_tokens)
        return self._slots

    def _read_next(self) -> None:
        import torch

        began = time.perf_counter()
        model, batch = self._reader.model, self._unread.popleft()
        texts = self._reader.lay_out([[self._prompts[i] for i in tree] for tree in batch])
        ends = [path[-1] for path in texts.paths]
        kept = sorted(set(ends))  # once, where several prompts are the same
        row_of = {place: row for row, place in enumerate(kept)}
        cache = _new_cache(model)
        kept_places = torch.tensor(kept, device=model.device)
        logits = _forward(model, cache, texts.arguments(model.device), kept_places)[0]
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


def _forward(
    model: Any, cache: DynamicCache | SlotCache, inputs: dict[str, Any], kept: int | torch.Tensor
) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=kept).logits
    return logits

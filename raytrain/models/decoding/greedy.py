"""Greedy decoding of many prompts: the likeliest token each time, and how sure that choice was.

A row that has ended leaves, and the next prompt takes its place, so that nothing is computed for it while others go on;
logits are made for the newest position alone. What prompts share, such as worked examples, is read once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from raytrain.models.decoding.choice import rows_of
from raytrain.models.decoding.rows import Rows, likeliest
from raytrain.models.packed_reading import reading

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class GreedyAnswer:
    """One prompt's."""

    tokens: tuple[int, ...]
    """What was written; an end token is not among them."""
    stop_reason: Literal["stop", "length", "nan"]
    """stop = the model or `is_complete` ended it, length = max_new_tokens were written, nan = the model gave NaN or
    infinity, and nothing more was written."""
    least_margin: float
    """Smallest lead, in logits, of a chosen token over the second. Sums in another order, as in a batch of another
    size, change logits by rounding: an answer whose lead is far above that comes out the same."""
    seconds: float
    """That reading it took, with what was read beside it, and from when its first token was looked for until its last
    one stood."""


def decode_greedily(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_tokens: Collection[int],
    pad_id: int,
    batch_size: int = 8,
    is_complete: Callable[[Sequence[int]], bool] | None = None,
) -> Iterator[tuple[int, GreedyAnswer]]:
    """(place of the prompt, its answer) as answers are found, at most `batch_size` being written at a time.

    `is_complete` sees the tokens so far, and ends an answer that holds all that is wanted. The model is left in the
    mode it was in.
    """
    import torch

    ends = frozenset(end_tokens)
    writing: dict[int, _Writing] = {}
    with reading(model) as reader:
        rows = rows_of(reader, prompts, pad_id, batch_size, max_new_tokens)
        is_going = True
        while is_going:
            ended: list[tuple[int, GreedyAnswer]] = []
            with torch.inference_mode():
                is_going = rows.fill()
                if is_going:
                    ended = _write(rows, writing, max_new_tokens, ends, is_complete)
            yield from ended


def holds_stop(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], tokens: Sequence[int]) -> bool:
    """Whether a stop text ends at the newest token; asked after each. The end alone is read: a token is a byte at
    least."""
    longest = max(len(stop.encode()) for stop in stops)
    if longest + _SPARE_TOKENS < len(tokens):
        end = tokenizer.decode(tokens[-longest - _SPARE_TOKENS :], skip_special_tokens=True)
        if not any(stop in end for stop in stops):
            return False
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return any(stop in text for stop in stops)


_SPARE_TOKENS = 8  # some tokens write nothing, and the first of a part may lose its space or half a character


def text_before(text: str, stops: Sequence[str]) -> str:
    """A text up to the first stop text in it."""
    ends = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(ends)] if ends else text


@dataclass
class _Writing:
    """An answer that is being written."""

    tokens: list[int] = field(default_factory=list)
    least_margin: float = math.inf

    def take(
        self,
        token: int,
        lead: float,
        max_new_tokens: int,
        end_tokens: frozenset[int],
        is_complete: Callable[[Sequence[int]], bool] | None,
    ) -> Literal["stop", "length", "nan"] | None:
        """Its next token; the reason if that ends it."""
        if math.isnan(lead):
            self.least_margin = math.nan
            return "nan"
        self.least_margin = min(self.least_margin, lead)
        if token in end_tokens:
            return "stop"
        self.tokens.append(token)
        if is_complete is not None and is_complete(self.tokens):
            return "stop"
        return "length" if len(self.tokens) >= max_new_tokens else None


def _write(
    rows: Rows,
    writing: dict[int, _Writing],
    max_new_tokens: int,
    end_tokens: frozenset[int],
    is_complete: Callable[[Sequence[int]], bool] | None,
) -> list[tuple[int, GreedyAnswer]]:
    """One token more for each row; the answers that stand now."""
    ended: list[tuple[int, GreedyAnswer]] = []
    going: dict[int, int] = {}
    tokens, leads = likeliest(rows.logits)
    now = time.perf_counter()
    for place, (row, token, lead) in enumerate(zip(rows.rows, tokens, leads, strict=True)):
        answer = writing.setdefault(row.number, _Writing())
        reason = answer.take(token, lead, max_new_tokens, end_tokens, is_complete)
        if reason is None:
            going[place] = token
            continue
        del writing[row.number]
        found = GreedyAnswer(tuple(answer.tokens), reason, answer.least_margin, now - row.began)
        ended.append((row.number, found))
    rows.read(going)
    return ended

"""What greedy decoding asks of prompts that are continued side by side, however a model does it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import Cache, DynamicCache


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


def likeliest(logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """The likeliest next token of each row, the first of equals, and its lead over the next; NaN where the greatest is
    no number."""
    values, _ = logits.topk(2, dim=1)  # NaN counts as the greatest
    leads = (values[:, 0] - values[:, 1]).where(values[:, 0].isfinite(), math.nan)
    return logits.argmax(dim=1).tolist(), leads.tolist()


def new_cache(model: Any) -> DynamicCache:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def forward(model: Any, cache: Cache, inputs: dict[str, Any], kept: int | torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=kept).logits
    return logits

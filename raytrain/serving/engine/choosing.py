"""The next token of each row: the likeliest, or one that is drawn by the row's own random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raytrain.serving.engine.request import Sampling

if TYPE_CHECKING:
    import torch

_MOST_DRAWN_FROM = 1024
"""Tokens whose probabilities are sorted first: with top_p below 1 they nearly always hold that share."""

_COLDEST = 1e-6
"""Below this temperature the likeliest token is all that is left, and logits divided by it may be no numbers."""


@dataclass(frozen=True)
class Chosen:
    """A row's next token."""

    id: int
    """-1 where the model gave what is no number."""
    logprob: float = 0.0
    alternatives: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their logprobs."""


@dataclass
class Chooser:
    """Of one row."""

    sampling: Sampling

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.sampling.seed)

    @property
    def is_greedy(self) -> bool:
        return self.sampling.temperature < _COLDEST

    def draw(self, logits: torch.Tensor) -> int:
        """From (vocabulary,). One random number is taken for each token, so that a row's draws are its own."""
        chances = (logits.double() / self.sampling.temperature).softmax(0)
        where = self._random.random()
        if self.sampling.top_p >= 1:
            return int((chances.cumsum(0) > where).int().argmax())
        return _from_the_top(chances, self.sampling.top_p, where)


def _from_the_top(chances: torch.Tensor, top_p: float, where: float) -> int:
    """The fewest likeliest tokens that make up top_p (Holtzman et al. 2020), and one of them."""
    num = min(_MOST_DRAWN_FROM, len(chances))
    values, ids = chances.topk(num)
    sums = values.cumsum(0)
    if float(sums[-1]) < top_p and num < len(chances):
        values, ids = chances.sort(descending=True)
        sums = values.cumsum(0)
    kept = min(int((sums < top_p).sum()) + 1, len(ids))
    return int(ids[int((sums[:kept] > where * float(sums[kept - 1])).int().argmax())])


def choose(logits: torch.Tensor, choosers: Sequence[Chooser]) -> list[Chosen]:
    """logits: (rows, vocabulary), float32; what may not be chosen is -inf."""
    likeliest = logits.argmax(1).tolist()
    is_number = logits.amax(1).isfinite().tolist()
    return [
        _choose_one(row, likeliest[place], chooser) if is_number[place] else Chosen(-1)
        for place, (row, chooser) in enumerate(zip(logits, choosers, strict=True))
    ]


def _choose_one(row: torch.Tensor, likeliest: int, chooser: Chooser) -> Chosen:
    token = likeliest if chooser.is_greedy else chooser.draw(row)
    num = chooser.sampling.top_logprobs
    if num is None:
        return Chosen(token)
    logprobs = row.double().log_softmax(0)
    alternatives: tuple[tuple[int, float], ...] = ()
    if num:
        values, ids = logprobs.topk(num)
        alternatives = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Chosen(token, float(logprobs[token]), alternatives)

"""One process, nothing to exchange."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class SingleProcess:
    """The strategy of one worker."""

    world_size = 1
    world_rank = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._model: torch.nn.Module | None = None

    def wrap(self, model: torch.nn.Module) -> None:
        self._model = model

    def forward(self, **inputs: torch.Tensor) -> Any:
        assert self._model is not None, "wrap comes before forward"
        return self._model(**inputs)

    def accumulating(self, is_last: bool) -> AbstractContextManager[None]:  # noqa: ARG002 - nobody to exchange with
        return nullcontext()

    def sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def gather_on_rank_zero(self, value: Any) -> list[Any] | None:
        return [value]

    def broadcast_from_rank_zero(self, value: Any) -> Any:
        return value

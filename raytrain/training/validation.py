"""Loss on the validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raytrain.data.batches import Dealer, Examples
from raytrain.data.collators import Collator
from raytrain.training.batching import tensors_of
from raytrain.training.losses.base import CountsHits, LogsMetrics, Loss, Phase, row_weights
from raytrain.training.precision import autocast
from raytrain.training.strategies.base import Strategy


@dataclass(frozen=True)
class Evaluator:
    """Evaluates on the first `max_rows` rows of a table, all where it is None."""

    table: Examples
    deal: Dealer
    collate: Collator
    precision: str
    max_rows: int | None = None
    loss: Loss | None = None
    """The loss that the strategy runs; asked how it weighs rows, and for its right answers."""
    is_language_model: bool = True
    """Whether the exponential of its loss is a perplexity."""

    @property
    def num_rows(self) -> int:
        return len(self.table) if self.max_rows is None else min(self.max_rows, len(self.table))

    def evaluate(self, strategy: Strategy) -> dict[str, float]:
        """*Collective.* `eval/loss` in nats per target over all rows; for classifications `eval/accuracy`, the share of
        right answers, for language models `eval/perplexity`, the exponential of the loss.

        The caller has put the model into evaluation mode. A rank without rows runs a stand-in, as weights that are
        spread over the ranks are only whole while all of them go forward.
        """
        rows = np.arange(self.num_rows, dtype=np.int64)
        counter = self.loss if isinstance(self.loss, CountsHits) else None
        if counter is not None:
            counter.take_hits()
        loss_sums = []  # read once: each look waits for the device
        with torch.no_grad(), autocast(strategy.device, self.precision):
            for slots in self.deal(rows, self.table.lengths[: self.num_rows], strategy.world_size):
                inputs, labels = tensors_of(
                    self.collate(self.table, slots[strategy.world_rank]), strategy.device
                )
                loss_sums.append(strategy.forward(inputs, labels))
        hits = counter.take_hits() if counter is not None else (0.0, 0.0)
        loss_sum = float(torch.stack(loss_sums).double().sum()) if loss_sums else 0.0
        total, num_right, num_answers = strategy.sum_over_ranks([loss_sum, *hits])
        loss = total / (float(self._row_weights().sum()) or 1.0)
        metrics = {"eval/loss": loss}
        if self.is_language_model:
            metrics["eval/perplexity"] = math.exp(min(loss, 700.0))
        if counter is not None:
            metrics["eval/accuracy"] = num_right / max(1.0, num_answers)
        return metrics

    def take_logged(self, phase: Phase) -> dict[str, float]:
        """What the loss has recorded by itself on this rank since the last call."""
        return self.loss.take_logged(phase) if isinstance(self.loss, LogsMetrics) else {}

    def _row_weights(self) -> NDArray[np.float64]:
        return row_weights(self.loss, self.table)[: self.num_rows]

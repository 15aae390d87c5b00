"""Loss on the validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raytrain.data.batches import Dealer, Examples
from raytrain.data.collators import Collator, MicroBatch
from raytrain.training.precision import autocast
from raytrain.training.strategies.base import Strategy


def tensors_of(batch: MicroBatch, device: torch.device) -> tuple[dict[str, Any], torch.Tensor]:
    """The model's arguments and the labels on `device`; to a GPU they travel while it works."""

    def moved(array: np.ndarray[Any, Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    inputs = {
        name: moved(value) if isinstance(value, np.ndarray) else value for name, value in batch.inputs.items()
    }
    return inputs, moved(batch.labels)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates on the first `max_rows` rows of a table, all where it is None."""

    table: Examples
    deal: Dealer
    collate: Collator
    precision: str
    max_rows: int | None = None

    @property
    def num_rows(self) -> int:
        return len(self.table) if self.max_rows is None else min(self.max_rows, len(self.table))

    def evaluate(self, strategy: Strategy) -> dict[str, float]:
        """*Collective.* `eval/loss` in nats per target over all rows, and its exponential as `eval/perplexity`.

        The caller has put the model into evaluation mode. A rank without rows runs a stand-in, as weights that are
        spread over the ranks are only whole while all of them go forward.
        """
        rows = np.arange(self.num_rows, dtype=np.int64)
        num_targets = int(self.table.num_loss_tokens[: self.num_rows].sum())
        loss_sum = 0.0
        with torch.no_grad(), autocast(strategy.device, self.precision):
            for slots in self.deal(rows, self.table.lengths[: self.num_rows], strategy.world_size):
                inputs, labels = tensors_of(
                    self.collate(self.table, slots[strategy.world_rank]), strategy.device
                )
                loss_sum += float(strategy.forward(inputs, labels))
        (total,) = strategy.sum_over_ranks([loss_sum])
        loss = total / max(1, num_targets)
        return {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700.0))}

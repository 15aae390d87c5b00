"""Loss on the validation rows."""

from __future__ import annotations

import math

import numpy as np
import torch

from raytrain.data.batches import collate, deal
from raytrain.data.tokens import TokenTable
from raytrain.training.losses import causal_lm_loss_sum
from raytrain.training.precision import autocast
from raytrain.training.strategies.base import Strategy


def evaluate_loss(
    model: torch.nn.Module,
    table: TokenTable,
    strategy: Strategy,
    *,
    micro_batch_size: int,
    pad_id: int,
    precision: str,
    max_rows: int | None = None,
) -> dict[str, float]:
    """*Collective.* `eval/loss` in nats per target token over all rows, and its exponential as `eval/perplexity`.

    The model is called without the strategy's wrapper: nothing is exchanged but the sums at the end.
    """
    num_rows = len(table) if max_rows is None else min(max_rows, len(table))
    rows = np.arange(num_rows, dtype=np.int64)
    num_tokens = int(table.num_loss_tokens[:num_rows].sum())
    was_training = model.training
    model.eval()
    loss_sum = 0.0
    try:
        with torch.no_grad(), autocast(strategy.device, precision):
            for slots in deal(rows, table.lengths[:num_rows], strategy.world_size, micro_batch_size):
                mine = slots[strategy.world_rank]
                if len(mine) == 0:
                    continue
                batch = collate(table, mine, pad_id)
                logits = model(
                    input_ids=torch.from_numpy(batch.input_ids).to(strategy.device),
                    attention_mask=torch.from_numpy(batch.attention_mask).to(strategy.device),
                ).logits
                loss_sum += float(
                    causal_lm_loss_sum(logits, torch.from_numpy(batch.labels).to(strategy.device))
                )
    finally:
        model.train(was_training)
    (total,) = strategy.sum_over_ranks([loss_sum])
    loss = total / max(1, num_tokens)
    return {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700.0))}

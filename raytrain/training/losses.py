"""The loss of one micro-batch, as a sum: dividing by the right number of tokens is the caller's business."""

from __future__ import annotations

import torch
from torch.nn import functional

from raytrain.data.batches import IGNORED_LABEL


def causal_lm_loss_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats of each next token.

    logits: (rows, length, vocabulary); labels: (rows, length), IGNORED_LABEL where there is no loss. The label at
    position t is predicted by the logits at t - 1. Computed in float32. Zero where every label is ignored.
    """
    targets = labels[:, 1:].reshape(-1)
    scores = logits[:, :-1].reshape(-1, logits.size(-1)).float()
    return functional.cross_entropy(scores, targets, ignore_index=IGNORED_LABEL, reduction="sum")

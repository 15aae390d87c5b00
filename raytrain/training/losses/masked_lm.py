"""Cross-entropy of hidden tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from raytrain.data.collators import IGNORED_LABEL
from raytrain.training.losses.base import LossSetup, take_target_positions
from raytrain.training.losses.batch_checks import ValueChecks, check_shapes, logits_of
from raytrain.training.losses.registry import refuse_other_tasks, register_loss


@register_loss("masked_lm")
class MaskedLMLoss:
    """Summed cross-entropy in nats of each token to guess; labels: (rows, length), IGNORED_LABEL elsewhere.

    Only the logits of those tokens are raised to float32: about one in seven.
    """

    takes_target_positions = True

    def __init__(self, setup: LossSetup) -> None:
        refuse_other_tasks(setup, "masked_lm", frozenset(["masked_lm"]))
        self._check_values = ValueChecks(setup.model)

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        inputs, positions = take_target_positions(inputs)
        logits = logits_of(model, inputs)
        check_shapes(logits, labels)
        self._check_values(inputs, labels, logits.shape[-1])
        if positions is None:
            positions = (labels.flatten() != IGNORED_LABEL).nonzero()[:, 0]
        chosen = logits.flatten(0, 1)[positions].float()
        return functional.cross_entropy(chosen, labels.flatten()[positions], reduction="sum")

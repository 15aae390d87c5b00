"""Cross-entropy of what a decoder writes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from raytrain.data.collators import IGNORED_LABEL
from raytrain.errors import ConfigError
from raytrain.models.inner import inner_model
from raytrain.training.losses.base import LossSetup
from raytrain.training.losses.batch_checks import ValueChecks, check_shapes, logits_of
from raytrain.training.losses.registry import refuse_other_tasks, register_loss


@register_loss("seq2seq")
class Seq2SeqLoss:
    """Summed cross-entropy in nats of each target token; labels: (rows, longest target), IGNORED_LABEL for padding.

    The decoder reads the target shifted by one, from the model's own start token on. The model is given no labels: it
    would compute a loss of its own besides, a mean over this micro-batch alone.
    """

    def __init__(self, setup: LossSetup) -> None:
        refuse_other_tasks(setup, "seq2seq", frozenset(["seq2seq"]))
        inside = inner_model(setup.model)
        shift = getattr(inside, "prepare_decoder_input_ids_from_labels", None)
        if shift is None:
            raise ConfigError(
                "model.task: seq2seq cannot be used with this model",
                why=f"{type(inside).__name__} does not say what its decoder begins with",
                fix="take an encoder-decoder such as T5 or BART, or name a loss of your own with train.loss.name",
            )
        self._shift = shift
        self._smoothing = setup.section.label_smoothing
        self._check_values = ValueChecks(setup.model)

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        logits = logits_of(model, {**inputs, "decoder_input_ids": self._shift(labels=labels)})
        check_shapes(logits, labels)
        self._check_values(inputs, labels, logits.shape[-1])
        return functional.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=self._smoothing,
        )

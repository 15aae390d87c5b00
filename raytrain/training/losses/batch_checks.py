"""What every loss asks of a micro-batch and of the model's answer to it."""

from __future__ import annotations

from typing import Any

import torch

from raytrain.data.collators import IGNORED_LABEL
from raytrain.errors import TrainingError
from raytrain.models.inner import inner_model
from raytrain.models.output import ModelOutput


def logits_of(model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    """Run the model; TrainingError where its answer holds no logits."""
    try:
        return ModelOutput.from_raw(model(**inputs)).logits
    except TypeError as error:
        raise TrainingError(
            "the model's answer cannot be used",
            why=str(error),
            fix="check model.task, or name a loss of your own with train.loss.name",
        ) from error


def check_shapes(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Logits have the labels' shape and one dimension more, the classes."""
    if logits.shape[:-1] != labels.shape:
        raise TrainingError(
            f"labels of shape {list(labels.shape)} do not fit logits of shape {list(logits.shape)}",
            why=f"the loss needs labels of shape {list(logits.shape[:-1])}, one for each row of logits",
            fix="check model.task: it decides what rows, labels and head look like; "
            "a collator or model of your own must agree with it",
        )


class ValueChecks:
    """Checks that look at values: on a CPU at every batch, elsewhere at the first: each look waits for the device."""

    def __init__(self, model: torch.nn.Module) -> None:
        config = getattr(inner_model(model), "config", None)
        self._pad_id: int | None = getattr(config, "pad_token_id", None)
        self._eos_id = getattr(config, "eos_token_id", None)
        self._looked = False

    def __call__(self, inputs: dict[str, Any], labels: torch.Tensor, num_classes: int | None = None) -> None:
        """TrainingError where a label is none of `num_classes` classes, or rows are padded without a mask."""
        if labels.device.type != "cpu" and self._looked:
            return
        self._looked = True
        if num_classes is not None:
            check_range(labels, num_classes)
        self._check_mask(inputs)

    def _check_mask(self, inputs: dict[str, Any]) -> None:
        ids = inputs.get("input_ids")
        if ids is None or self._pad_id is None or "document_ends" in inputs:
            return
        if inputs.get("attention_mask") is not None or ids.ndim != 2:
            return
        # Where rows end with the token that also pads, only a second one in a row is padding for certain.
        least = 2 if self._eos_id == self._pad_id else 1
        if ids.shape[1] >= least and bool((ids[:, -least:] == self._pad_id).all(dim=1).any()):
            raise TrainingError(
                "rows are padded, and the batch has no attention_mask",
                why=f"a row ends with the pad token {self._pad_id}; without a mask the model reads it as text",
                fix="have the collator return `attention_mask`: 1 for tokens, 0 for padding",
            )


def check_range(labels: torch.Tensor, num_classes: int) -> None:
    """TrainingError where a label is no class; on a GPU it would end the process without a word."""
    wrong = labels[(labels != IGNORED_LABEL) & ((labels < 0) | (labels >= num_classes))]
    if wrong.numel():
        raise TrainingError(
            f"the label {int(wrong[0])} is out of range",
            why=f"the model tells {num_classes} classes apart, numbered 0 to {num_classes - 1}; "
            f"{IGNORED_LABEL} marks what has no label",
            fix="check data.labels: it must name as many classes as the rows and the head have",
        )

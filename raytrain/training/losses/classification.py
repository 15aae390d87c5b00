"""Cross-entropy over classes: of texts, of tokens, of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from raytrain.config.recipe import nearest
from raytrain.data.batches import Examples
from raytrain.data.collators import IGNORED_LABEL
from raytrain.data.tasks import CLASSIFICATION_TASKS
from raytrain.errors import ConfigError
from raytrain.training.losses.base import LossSetup
from raytrain.training.losses.batch_checks import ValueChecks, check_shapes, logits_of
from raytrain.training.losses.registry import refuse_other_tasks, register_loss


@register_loss("classification")
class ClassificationLoss:
    """Summed cross-entropy in nats; labels: (rows,) or (rows, length), IGNORED_LABEL where there is no loss.

    Divided by the sum of the targets' class weights it is torch's cross_entropy of the whole global batch, with weights
    and label smoothing (Szegedy et al. 2016, section 7). Logits are reduced in float32, whatever they are held in.
    """

    def __init__(self, setup: LossSetup) -> None:
        refuse_other_tasks(setup, "classification", CLASSIFICATION_TASKS)
        self._weights = class_weights(setup)
        self._smoothing = setup.section.label_smoothing
        self._num_classes = len(setup.labels)
        self._check_values = ValueChecks(setup.model)
        self._hits: list[torch.Tensor] = []

    def __call__(self, model: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        logits = logits_of(model, inputs)
        check_shapes(logits, labels)
        self._check_values(inputs, labels, logits.shape[-1])
        flat, targets = logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1)
        if not model.training:
            self._count(flat, targets)
        return functional.cross_entropy(
            flat,
            targets,
            weight=None if self._weights is None else self._weights.to(flat.device),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=self._smoothing,
        )

    def row_weights(self, table: Any) -> NDArray[np.float64] | None:
        """The sum of the class weights of each row's targets."""
        if self._weights is None:
            return None
        weights = self._weights.double().numpy()
        numbers = _class_numbers(table)
        of_target = np.where(numbers == IGNORED_LABEL, 0.0, weights[np.maximum(numbers, 0)])
        if len(numbers) == len(table):
            return of_target
        offsets: NDArray[np.int64] = table.offsets
        total = np.concatenate([[0.0], np.cumsum(of_target)])
        return np.asarray(total[offsets[1:]] - total[offsets[:-1]], np.float64)

    def _count(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        counts = targets != IGNORED_LABEL
        right = (logits.argmax(dim=-1) == targets) & counts
        self._hits.append(torch.stack([right.sum(), counts.sum()]))

    def take_hits(self) -> tuple[float, float]:
        """(right answers, answers) on this rank since the last call, in evaluation mode."""
        hits, self._hits = self._hits, []
        right, num_answers = torch.stack(hits).sum(dim=0).tolist() if hits else (0, 0)
        return float(right), float(num_answers)


def _class_numbers(table: Any) -> NDArray[np.int32]:
    """The classes of all rows, or of all tokens, of a ClassTable, TagTable or ImageTable."""
    return np.asarray(table.tag_ids if hasattr(table, "tag_ids") else table.class_ids, np.int32)


def class_counts(table: Examples, num_classes: int) -> NDArray[np.int64]:
    """Targets of each class in the rows of a table."""
    numbers = _class_numbers(table)
    return np.bincount(numbers[numbers != IGNORED_LABEL], minlength=num_classes).astype(np.int64)


def class_weights(setup: LossSetup) -> torch.Tensor | None:
    """The weight of each class, float32; None where all weigh the same.

    balanced: targets / (classes * targets of the class), so that every class weighs the same in sum.
    """
    wanted = setup.section.class_weights
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        _refuse_unknown(wanted, setup.labels)
        return torch.tensor([float(wanted.get(label, 1.0)) for label in setup.labels])
    counts = setup.class_counts
    assert counts is not None, "a classification knows its classes"
    absent = [label for label, count in zip(setup.labels, counts, strict=True) if count == 0]
    if absent:
        raise ConfigError(
            "train.loss.class_weights: balanced cannot weigh a class without rows",
            why=f"no training row has the class {absent[0]}",
            fix="leave the class out of data.labels, or give the weights by name",
        )
    return torch.from_numpy(counts.sum() / (len(counts) * counts)).float()


def _refuse_unknown(weights: Mapping[str, float], labels: tuple[str, ...]) -> None:
    for name in weights:
        if name not in labels:
            near = nearest(name, labels)
            raise ConfigError(
                f"train.loss.class_weights: there is no class `{name}`",
                why=f"the classes are: {', '.join(labels)}",
                fix=f"did you mean `{near}`?" if near else "name classes that the rows have",
            )

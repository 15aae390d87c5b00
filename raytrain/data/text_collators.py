"""Rows of text to the arrays of one forward pass, for the tasks beside causal language modelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.data.collators import IGNORED_LABEL, MicroBatch
from raytrain.data.draws import uniform
from raytrain.data.text_examples import ClassTable, MaskableTable, PairTable, TagTable

_SHARE_MASKED, _SHARE_RANDOM = 0.8, 0.1  # BERT (Devlin et al. 2018), section 3.1; the rest stays as it is


def padded(parts: Sequence[NDArray[Any]], fill: int) -> NDArray[np.int64]:
    """Parts under each other, filled up on the right to the longest."""
    longest = max(len(one) for one in parts)
    made = np.full((len(parts), longest), fill, np.int64)
    for i, one in enumerate(parts):
        made[i, : len(one)] = one
    return made


def _text_inputs(parts: Sequence[NDArray[Any]], pad_id: int) -> dict[str, Any]:
    return {
        "input_ids": padded(parts, pad_id),
        "attention_mask": padded([np.ones(len(one), np.int64) for one in parts], 0),
    }


def _shown(rows: NDArray[np.int64]) -> list[int]:
    """The rows that are laid out: a stand-in where there are none."""
    return [int(row) for row in rows] or [0]


def _batch(inputs: dict[str, Any], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> MicroBatch:
    if len(rows) == 0:
        return MicroBatch(inputs, np.full_like(labels, IGNORED_LABEL), 0)
    return MicroBatch(inputs, labels, int(inputs["attention_mask"].sum()))


@dataclass(frozen=True)
class ClassCollator:
    """labels: (rows,), the number of each text's class."""

    pad_id: int

    def __call__(self, table: ClassTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:  # noqa: ARG002
        shown = _shown(rows)
        inputs = _text_inputs([table.ids(row) for row in shown], self.pad_id)
        return _batch(inputs, table.class_ids[shown].astype(np.int64), rows)


@dataclass(frozen=True)
class TagCollator:
    """labels: (rows, longest row), the class of a word at its first token and IGNORED_LABEL elsewhere."""

    pad_id: int

    def __call__(self, table: TagTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:  # noqa: ARG002
        shown = _shown(rows)
        inputs = _text_inputs([table.ids(row) for row in shown], self.pad_id)
        return _batch(inputs, padded([table.tags(row) for row in shown], IGNORED_LABEL), rows)


@dataclass(frozen=True)
class MaskingCollator:
    """labels: (rows, longest row), the true token where one is to be guessed and IGNORED_LABEL elsewhere.

    Of the tokens to guess 80 % are hidden by the mask token, 10 % replaced by another, 10 % left. What is drawn depends
    on seed, epoch and row alone.
    """

    pad_id: int
    mask_id: int
    vocab_size: int
    seed: int

    def __call__(self, table: MaskableTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:
        shown = _shown(rows)
        masked = [self.masked(table, row, epoch) for row in shown]
        inputs = _text_inputs([ids for ids, _ in masked], self.pad_id)
        batch = _batch(inputs, padded([labels for _, labels in masked], IGNORED_LABEL), rows)
        return replace(batch, target_positions=np.flatnonzero(batch.labels != IGNORED_LABEL))

    def masked(
        self, table: MaskableTable, row: int, epoch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input ids and labels of one row in one epoch."""
        ids = table.ids(row).astype(np.int64)
        may = np.flatnonzero(table.maskable(row))
        place = {"seed": self.seed, "epoch": epoch, "row": row}
        order = np.argsort(uniform("mask_where", count=len(may), **place), kind="stable")
        chosen = np.sort(may[order[: int(table.num_masked[row])]])
        labels = np.full_like(ids, IGNORED_LABEL)
        labels[chosen] = ids[chosen]
        how = uniform("mask_how", count=len(chosen), **place)
        others = np.floor(uniform("mask_token", count=len(chosen), **place) * self.vocab_size)
        is_hidden = how < _SHARE_MASKED
        is_replaced = ~is_hidden & (how < _SHARE_MASKED + _SHARE_RANDOM)
        ids[chosen[is_hidden]] = self.mask_id
        ids[chosen[is_replaced]] = others[is_replaced].astype(np.int64)
        return ids, labels


@dataclass(frozen=True)
class PairCollator:
    """labels: (rows, longest target), the target's tokens; the loss gives them to the decoder, shifted by one."""

    pad_id: int

    def __call__(self, table: PairTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:  # noqa: ARG002
        shown = _shown(rows)
        inputs = _text_inputs([table.ids(row) for row in shown], self.pad_id)
        batch = _batch(inputs, padded([table.target(row) for row in shown], IGNORED_LABEL), rows)
        num_targets = int((batch.labels != IGNORED_LABEL).sum())
        return MicroBatch(batch.inputs, batch.labels, batch.num_tokens + num_targets)

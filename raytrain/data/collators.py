"""Rows to the arrays of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raytrain.data.tokens import TokenTable

IGNORED_LABEL = -100  # torch's cross-entropy skips it


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of one worker.

    `inputs` are the model's arguments by name; arrays become tensors, all else is passed as it is. `labels` holds
    IGNORED_LABEL where there is no loss. `num_tokens` counts tokens without padding. `target_positions` are the places
    of the flattened labels' shape whose logits have a target: a loss that computes there alone would otherwise have to
    ask a GPU for them, and wait.
    """

    inputs: dict[str, Any]
    labels: NDArray[Any]
    num_tokens: int
    target_positions: NDArray[np.int64] | None = None


def next_token_positions(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Flattened positions that predict a label: t where t + 1 has one. labels: (rows, length)."""
    predicts = np.zeros(labels.shape, bool)
    predicts[:, :-1] = labels[:, 1:] != IGNORED_LABEL
    return np.flatnonzero(predicts)


class Collator(Protocol):
    """Makes a MicroBatch of some rows of a table. Without any row it makes a stand-in whose labels are all ignored.

    A pure function: what it draws at random (see draws.py) depends on its seed, the epoch and the row alone. There are
    no loader processes whose generators would have to be seeded apart, and nothing to restore on a resume.
    """

    def __call__(self, table: Any, rows: NDArray[np.int64], epoch: int = 0, /) -> MicroBatch: ...


@dataclass(frozen=True)
class PaddedCollator:
    """Rows under each other, padded on the right: arrays of shape (rows, longest row)."""

    pad_id: int

    def __call__(self, table: TokenTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:  # noqa: ARG002
        chosen = [table.row(int(index)) for index in rows] or [table.row(0)]
        counts = len(rows) > 0
        longest = max(len(ids) for ids, _ in chosen)
        shape = (len(chosen), longest)
        input_ids = np.full(shape, self.pad_id, np.int64)
        attention_mask = np.zeros(shape, np.int64)
        labels = np.full(shape, IGNORED_LABEL, np.int64)
        for i, (ids, mask) in enumerate(chosen):
            input_ids[i, : len(ids)] = ids
            attention_mask[i, : len(ids)] = 1
            if counts:
                labels[i, : len(ids)] = np.where(mask == 1, ids, IGNORED_LABEL)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        num_tokens = int(attention_mask.sum()) if counts else 0
        return MicroBatch(inputs, labels, num_tokens, next_token_positions(labels))


@dataclass(frozen=True)
class PackedCollator:
    """Rows after each other in one sequence without padding: arrays of shape (1, tokens).

    Positions start anew in every row, and `document_ends` says where a row ends, so that the attention (see
    models/attention.py) never looks across; `document_bounds` says it to a kernel, on its device. The first token of a
    row is predicted by nothing and carries no label.
    """

    def __call__(self, table: TokenTable, rows: NDArray[np.int64], epoch: int = 0) -> MicroBatch:  # noqa: ARG002
        chosen = [table.row(int(index)) for index in rows] or [table.row(0)]
        lengths = [len(ids) for ids, _ in chosen]
        input_ids = np.concatenate([ids for ids, _ in chosen]).astype(np.int64)
        position_ids = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
        labels = np.full_like(input_ids, IGNORED_LABEL)
        if len(rows) > 0:
            is_target = np.concatenate([mask for _, mask in chosen]) == 1
            labels = np.where(is_target & (position_ids > 0), input_ids, IGNORED_LABEL)
        inputs = {
            "input_ids": input_ids[None],
            "position_ids": position_ids[None],
            # Of four dimensions it is a finished mask to transformers, which then looks at no number on the device;
            # the attention over documents needs none.
            "attention_mask": np.ones((1, 1, 1, 1), bool),
            "document_ends": np.cumsum(lengths).tolist(),
            "document_bounds": np.cumsum([0, *lengths], dtype=np.int32),
        }
        num_tokens = len(input_ids) if len(rows) > 0 else 0
        return MicroBatch(inputs, labels[None], num_tokens, next_token_positions(labels[None]))

"""Which rows an optimizer step sees, on which worker, in which micro-batch.

Everything here is a pure function of (seed, position, sizes): the order of rows does not depend on the number of
workers, nothing has to be replayed on a resume, and all workers agree without a word between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrain.data.tokens import TokenTable

IGNORED_LABEL = -100  # torch's cross-entropy skips it


@dataclass(frozen=True)
class Position:
    """Where in the data a run stands: rows `[0, row)` of `epoch` have been seen."""

    epoch: int = 0
    row: int = 0


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of one worker: arrays of shape (rows, longest row), padded on the right.

    `labels` holds IGNORED_LABEL where there is no loss. `num_tokens` counts tokens without padding.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    labels: NDArray[np.int64]
    num_tokens: int


@dataclass(frozen=True)
class GlobalBatch:
    """The rows of one optimizer step over all workers.

    `slots[step][rank]` lists the rows that worker `rank` sees in accumulation step `step`; an empty list is a worker
    that only keeps its place in the collective. `num_loss_tokens` normalises the loss over all of them.
    """

    rows: NDArray[np.int64]
    slots: list[list[NDArray[np.int64]]]
    num_loss_tokens: int
    num_tokens: int
    after: Position


def epoch_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the rows for one epoch.

    Rows are sorted by SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators") of their index
    under a key from seed and epoch: the order is fixed by arithmetic alone and outlives any library's generator.
    """
    with np.errstate(over="ignore"):
        key = _splitmix64(_splitmix64(np.array([seed], np.uint64)) + np.uint64(epoch))
        scores = _splitmix64(np.arange(num_rows, dtype=np.uint64) + key)
    return np.argsort(scores, kind="stable").astype(np.int64)


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class BatchPlanner:
    """Cuts the epochs of a TokenTable into global batches, from any position on."""

    def __init__(
        self, table: TokenTable, *, seed: int, global_batch_size: int, micro_batch_size: int, world_size: int
    ) -> None:
        self.table = table
        self.seed = seed
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.world_size = world_size
        self._lengths = table.lengths
        self._num_loss_tokens = table.num_loss_tokens
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def batch_at(self, position: Position) -> GlobalBatch:
        """The batch that starts at `position`; an epoch's last batch holds the rows that are left."""
        if position.row >= len(self.table):
            position = Position(position.epoch + 1, 0)
        if self._order is None or self._order[0] != position.epoch:
            self._order = (position.epoch, epoch_order(len(self.table), self.seed, position.epoch))
        end = min(position.row + self.global_batch_size, len(self.table))
        rows = self._order[1][position.row : end]
        after = Position(position.epoch, end) if end < len(self.table) else Position(position.epoch + 1, 0)
        return GlobalBatch(
            rows=rows,
            slots=deal(rows, self._lengths[rows], self.world_size, self.micro_batch_size),
            num_loss_tokens=int(self._num_loss_tokens[rows].sum()),
            num_tokens=int(self._lengths[rows].sum()),
            after=after,
        )


def deal(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], world_size: int, micro_batch_size: int
) -> list[list[NDArray[np.int64]]]:
    """Deal the rows of a global batch into equal micro-batches: as few accumulation steps as the sizes allow.

    Rows are sorted by length first. That changes no sum, and neighbours pad each other less; the workers of one
    accumulation step get neighbours, and so wait for each other less.
    """
    num_steps = max(1, -(-len(rows) // (micro_batch_size * world_size)))
    by_length = rows[np.argsort(lengths, kind="stable")]
    parts = np.array_split(by_length, num_steps * world_size)
    return [parts[step * world_size : (step + 1) * world_size] for step in range(num_steps)]


def collate(table: TokenTable, rows: NDArray[np.int64], pad_id: int) -> MicroBatch:
    """Stack rows; without any, a stand-in of one row whose labels are all ignored."""
    chosen = [table.row(int(index)) for index in rows] or [table.row(0)]
    counts = len(rows) > 0
    longest = max(len(ids) for ids, _ in chosen)
    shape = (len(chosen), longest)
    input_ids = np.full(shape, pad_id, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORED_LABEL, np.int64)
    for i, (ids, mask) in enumerate(chosen):
        input_ids[i, : len(ids)] = ids
        attention_mask[i, : len(ids)] = 1
        if counts:
            labels[i, : len(ids)] = np.where(mask == 1, ids, IGNORED_LABEL)
    return MicroBatch(input_ids, attention_mask, labels, int(attention_mask.sum()) if counts else 0)

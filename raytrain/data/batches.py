"""Which rows an optimizer step sees, on which worker, in which micro-batch.

Everything here is a pure function of (seed, position, sizes): the order of rows does not depend on the number of
workers, nothing has to be replayed on a resume, and all workers agree without a word between them.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raytrain.data.draws import splitmix64

Slots = list[list[NDArray[np.int64]]]
"""`slots[step][rank]`: the rows that worker `rank` sees in accumulation step `step`; there may be none."""

Dealer = Callable[[NDArray[np.int64], NDArray[np.int64], int], Slots]
"""(rows, their lengths in tokens, world_size) → slots. See `deal_padded` and `deal_packed`."""


class Examples(Protocol):
    """Rows of one split, ready for the model. `lengths` is what a row costs; batches are balanced by it."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each row."""

    @property
    def num_loss_tokens(self) -> NDArray[np.int64]:
        """Targets of the loss in each row."""


@dataclass(frozen=True)
class Position:
    """Where in the data a run stands: rows `[0, row)` of `epoch` have been seen."""

    epoch: int = 0
    row: int = 0


@dataclass(frozen=True)
class GlobalBatch:
    """The rows of one optimizer step over all workers.

    A worker whose slot is empty only keeps its place in the collective. `loss_weight` normalises the loss: the number
    of targets in all rows, the sum of their weights where classes are weighted, or the number of rows.
    """

    rows: NDArray[np.int64]
    slots: Slots
    loss_weight: float
    num_tokens: int
    after: Position


def epoch_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the rows for one epoch.

    Rows are sorted by SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators") of their index
    under a key from seed and epoch: the order is fixed by arithmetic alone and outlives any library's generator.
    """
    with np.errstate(over="ignore"):
        key = splitmix64(splitmix64(np.array([seed], np.uint64)) + np.uint64(epoch))
        scores = splitmix64(np.arange(num_rows, dtype=np.uint64) + key)
    return np.argsort(scores, kind="stable").astype(np.int64)


class BatchPlanner:
    """Cuts the epochs of a table into global batches, from any position on."""

    def __init__(
        self,
        table: Examples,
        *,
        seed: int,
        global_batch_size: int,
        world_size: int,
        deal: Dealer,
        row_weights: NDArray[np.float64] | None = None,
    ) -> None:
        """`row_weights` are the loss weights of the rows; by default their numbers of targets."""
        self.table = table
        self.seed = seed
        self.global_batch_size = global_batch_size
        self.world_size = world_size
        self._deal = deal
        self._lengths = table.lengths
        self._row_weights = table.num_loss_tokens.astype(np.float64) if row_weights is None else row_weights
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
            slots=self._deal(rows, self._lengths[rows], self.world_size),
            loss_weight=float(self._row_weights[rows].sum()),
            num_tokens=int(self._lengths[rows].sum()),
            after=after,
        )


def deal_padded(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], world_size: int, *, micro_batch_size: int
) -> Slots:
    """Deal the rows of a global batch into equal micro-batches: as few accumulation steps as the sizes allow.

    Rows are sorted by length first. That changes no sum, and neighbours pad each other less; the workers of one
    accumulation step get neighbours, and so wait for each other less.
    """
    num_steps = max(1, -(-len(rows) // (micro_batch_size * world_size)))
    by_length = rows[np.argsort(lengths, kind="stable")]
    parts = np.array_split(by_length, num_steps * world_size)
    return [parts[step * world_size : (step + 1) * world_size] for step in range(num_steps)]


def deal_packed(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], world_size: int, *, max_tokens: int
) -> Slots:
    """Deal the rows into micro-batches of at most `max_tokens` tokens, of as equal size as can be.

    How many are needed at least is found by best-fit decreasing (Johnson 1974, "Fast algorithms for bin packing").
    Packed rows have no padding, so a fuller bin saves nothing; what costs is a worker that waits for another. The rows
    are therefore spread over that many bins longest first, each into the emptiest. A row of more than `max_tokens`
    lies alone.
    """
    longest_first = np.argsort(-lengths, kind="stable")
    num_bins = _num_bins_of_best_fit(lengths[longest_first], max_tokens)
    num_steps = max(1, -(-num_bins // world_size))
    while True:
        bins: list[list[int]] = [[] for _ in range(num_steps * world_size)]
        loads = np.zeros(len(bins), np.int64)
        for i in longest_first:
            emptiest = int(np.argmin(loads))
            bins[emptiest].append(int(rows[i]))
            loads[emptiest] += lengths[i]
        fits = all(load <= max_tokens or len(part) == 1 for load, part in zip(loads, bins, strict=True))
        if fits or num_steps * world_size >= len(rows):
            break
        num_steps += 1
    # Neighbours in size share an accumulation step.
    order = np.argsort(loads, kind="stable")
    parts = [np.asarray(sorted(bins[i]), np.int64) for i in order]
    return [parts[step * world_size : (step + 1) * world_size] for step in range(num_steps)]


def _num_bins_of_best_fit(longest_first: NDArray[np.int64], max_tokens: int) -> int:
    """Bins that best-fit decreasing fills: each row goes where it leaves the least room."""
    rooms: list[int] = []  # ascending
    for length in longest_first.tolist():
        place = bisect.bisect_left(rooms, length)
        room = rooms.pop(place) if place < len(rooms) else max_tokens
        bisect.insort(rooms, max(0, room - length))
    return len(rooms)

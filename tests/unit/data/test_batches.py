from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest_training import make_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raytrain.data.batches import BatchPlanner, Dealer, Position, deal_packed, deal_padded, epoch_order
from raytrain.data.collators import IGNORED_LABEL, PackedCollator, PaddedCollator
from raytrain.data.tokens import TokenTable

sizes = st.integers(1, 200)


def padded(micro_batch_size: int) -> Dealer:
    return partial(deal_padded, micro_batch_size=micro_batch_size)


@given(num_rows=sizes, seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10_000))
def test_an_epochs_order_is_a_permutation(num_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_rows, seed, epoch)
    assert sorted(order.tolist()) == list(range(num_rows))
    assert order.tolist() == epoch_order(num_rows, seed, epoch).tolist()


def test_the_order_is_fixed_for_ever() -> None:
    """A checkpoint of an old version must find its rows again: these values may never change."""
    assert epoch_order(8, seed=0, epoch=0).tolist() == [4, 0, 1, 7, 6, 2, 5, 3]
    assert epoch_order(8, seed=0, epoch=1).tolist() == [7, 0, 1, 6, 3, 4, 5, 2]
    assert epoch_order(8, seed=7, epoch=0).tolist() == [1, 3, 2, 4, 7, 0, 6, 5]


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


@settings(deadline=None)
@given(num_rows=sizes, batch=st.integers(1, 40), micro=st.integers(1, 9), world=st.integers(1, 5))
def test_every_row_once_per_epoch_for_any_sizes(num_rows: int, batch: int, micro: int, world: int) -> None:
    planner = BatchPlanner(
        make_table(num_rows), seed=1, global_batch_size=batch, world_size=world, deal=padded(micro)
    )
    position, orders = Position(), []
    for epoch in range(2):
        seen: list[int] = []
        while position.epoch == epoch:
            found = planner.batch_at(position)
            dealt = sorted(int(row) for slots in found.slots for rows in slots for row in rows)
            assert dealt == sorted(found.rows.tolist())
            assert all(len(slots) == world for slots in found.slots)
            assert all(len(rows) <= micro for slots in found.slots for rows in slots)
            seen.extend(found.rows.tolist())
            position = found.after
        assert sorted(seen) == list(range(num_rows))
        orders.append(seen)
    assert position == Position(2, 0)
    # The order of rows knows nothing of the number of workers.
    alone = BatchPlanner(make_table(num_rows), seed=1, global_batch_size=batch, world_size=1, deal=padded(1))
    assert alone.batch_at(Position()).rows.tolist() == orders[0][:batch]


def test_any_position_can_be_entered_without_replay() -> None:
    def planner() -> BatchPlanner:
        return BatchPlanner(make_table(23), seed=4, global_batch_size=8, world_size=2, deal=padded(2))

    straight, position = planner(), Position()
    for _ in range(7):
        batch = straight.batch_at(position)
        entered = planner().batch_at(position)
        assert entered.rows.tolist() == batch.rows.tolist()
        assert (entered.loss_weight, entered.after) == (batch.loss_weight, batch.after)
        position = batch.after


def test_a_position_past_the_end_is_the_next_epoch() -> None:
    """Where rows were counted otherwise: the position of a checkpoint never points at nothing."""
    planner = BatchPlanner(make_table(10), seed=0, global_batch_size=4, world_size=1, deal=padded(4))
    assert planner.batch_at(Position(0, 10)).rows.tolist() == planner.batch_at(Position(1, 0)).rows.tolist()


@pytest.mark.parametrize("is_packed", [False, True])
def test_counts_of_a_batch_are_those_of_its_rows(is_packed: bool) -> None:
    table = make_table(12)
    deal: Dealer = partial(deal_packed, max_tokens=30) if is_packed else padded(2)
    collate = PackedCollator() if is_packed else PaddedCollator(0)
    planner = BatchPlanner(table, seed=0, global_batch_size=5, world_size=2, deal=deal)
    batch = planner.batch_at(Position(0, 5))
    micros = [collate(table, rows) for slots in batch.slots for rows in slots]
    assert batch.num_tokens == sum(micro.num_tokens for micro in micros)
    targets = sum(int((micro.labels[:, 1:] != IGNORED_LABEL).sum()) for micro in micros)
    assert batch.loss_weight == targets


def test_weights_of_rows_normalise_where_they_are_given() -> None:
    weights = np.linspace(0.5, 2.0, 12)
    planner = BatchPlanner(
        make_table(12), seed=0, global_batch_size=5, world_size=1, deal=padded(2), row_weights=weights
    )
    batch = planner.batch_at(Position())
    assert batch.loss_weight == pytest.approx(weights[batch.rows].sum())


@given(
    num_rows=st.integers(1, 100), world=st.integers(1, 8), micro=st.integers(1, 16), seed=st.integers(0, 9)
)
def test_dealing_uses_the_fewest_steps(num_rows: int, world: int, micro: int, seed: int) -> None:
    rows = np.random.default_rng(seed).permutation(num_rows).astype(np.int64)
    lengths = np.random.default_rng(seed).integers(1, 50, num_rows).astype(np.int64)
    steps = deal_padded(rows, lengths, world, micro_batch_size=micro)
    assert len(steps) == -(-num_rows // (world * micro))
    counts = [len(part) for slots in steps for part in slots]
    assert max(counts) - min(counts) <= 1, "no worker carries more than one row above another"
    length_of = dict(zip(rows.tolist(), lengths.tolist(), strict=True))
    flat = [length_of[int(row)] for slots in steps for part in slots for row in part]
    assert flat == sorted(flat), "neighbours have like lengths"


@example(
    lengths=[5, 5, 6, 10, 11, 22], world=1, max_tokens=20
)  # one row is too long, and others must not follow it
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60),
    world=st.integers(1, 5),
    max_tokens=st.integers(20, 200),
)
def test_packing_keeps_within_its_tokens_and_loses_no_row(
    lengths: list[int], world: int, max_tokens: int
) -> None:
    rows = np.arange(len(lengths), dtype=np.int64) + 100
    steps = deal_packed(rows, np.asarray(lengths, np.int64), world, max_tokens=max_tokens)
    assert all(len(slots) == world for slots in steps)
    bins = [part.tolist() for slots in steps for part in slots]
    assert sorted(row for part in bins for row in part) == rows.tolist()
    loads = [sum(lengths[row - 100] for row in part) for part in bins]
    alone = [load for part, load in zip(bins, loads, strict=True) if len(part) == 1]
    assert all(load <= max_tokens or load in alone for load in loads), (loads, max_tokens)


def test_packing_fills_few_bins_evenly() -> None:
    """Six rows of 50 and six of 30 fit into six bins of 80 and no fewer; two workers get the same work."""
    lengths = np.array([50] * 6 + [30] * 6, np.int64)
    steps = deal_packed(np.arange(12, dtype=np.int64), lengths, 2, max_tokens=80)
    assert [[int(lengths[part].sum()) for part in slots] for slots in steps] == [[80, 80]] * 3


@pytest.fixture
def two_rows() -> TokenTable:
    return TokenTable(
        np.array([5, 6, 7, 8, 9], np.int32),
        np.array([0, 3, 5], np.int64),
        ["a", "b"],
        np.array([0, 1, 1, 0, 1], np.uint8),
    )


def test_targets_leave_out_a_rows_first_token(two_rows: TokenTable) -> None:
    assert two_rows.num_loss_tokens.tolist() == [2, 1]
    all_targets = replace(two_rows, loss_mask=np.ones(5, np.uint8))
    assert all_targets.num_loss_tokens.tolist() == [2, 1]
    empty = TokenTable(np.zeros(0, np.int32), np.zeros(1, np.int64), [], np.zeros(0, np.uint8))
    assert empty.num_loss_tokens.tolist() == []

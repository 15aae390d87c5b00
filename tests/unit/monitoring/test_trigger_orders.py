"""Decisions in the records database: of several who decide at once one acts, and orders are settled once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from raytrain.errors import ConfigError
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.monitoring.triggers.observing import look, metric_names, series_of
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Seen, Window
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.monitoring.triggers.telling import alerts_of
from raytrain.runs.records import Records, open_records

LOOSE = {"cooldown_hours": 0, "longest_cooldown_hours": 0, "most": {"orders": 1000, "days": 1000}}


def section(when: Any, **values: Any) -> TriggersSection:
    return TriggersSection.model_validate(
        {"triggers": "loop", "watch": "sums", "when": when, **LOOSE, **values}
    )


DRIFT = section({"any": [{"drift": {"above": 1.0}}, {"manual": True}]})


def seen(*scores: float) -> Seen:
    return Seen("s", tuple(Window(n, float(n), {"drift/score": one}) for n, one in enumerate(scores, 1)))


@pytest.fixture
def records(database_url: str) -> Iterator[Records]:
    records = open_records(database_url)
    yield records
    records.close()


@pytest.fixture
def store(records: Records) -> TriggerStore:
    return TriggerStore(records.engine)


def test_an_order_is_kept_with_its_reasons_until_it_is_settled(store: TriggerStore) -> None:
    assert store.decide(DRIFT, seen(0.5), now=10.0).order is None
    decision = store.decide(DRIFT, seen(0.5, 1.5), now=20.0)
    assert decision.order is not None and decision.order.id == "loop-000001"
    (found,) = store.orders()
    assert found.order == decision.order and found.is_open and store.state("loop") == decision.state
    assert store.decide(DRIFT, seen(0.5, 1.5, 1.5), now=30.0).order is None
    done = store.settle(DRIFT, "loop-000001", "no_gain", "not better by 2 points", now=40.0)
    assert (done.outcome, done.settled_at, done.why, done.is_open) == (
        "no_gain",
        40.0,
        "not better by 2 points",
        False,
    )
    assert store.settle(DRIFT, "loop-000001", "no_gain", now=50.0).settled_at == 40.0, "once"
    with pytest.raises(ConfigError, match="is done with"):
        store.settle(DRIFT, "loop-000001", "succeeded")
    with pytest.raises(ConfigError, match="there is no order loop-000009"):
        store.settle(DRIFT, "loop-000009", "succeeded")
    assert store.state("loop").num_fruitless == 1
    assert store.orders("other") == []


def test_what_is_asked_for_by_hand_is_ordered_once(store: TriggerStore) -> None:
    store.request(DRIFT, "ada", "a new tool", now=5.0)
    decision = store.decide(DRIFT, Seen(), now=6.0)
    assert decision.order is not None and decision.order.reasons == ("asked for by ada: a new tool",)
    assert store.decide(DRIFT, Seen(), now=7.0).order is None
    with pytest.raises(ConfigError, match="takes no requests"):
        store.request(section({"drift": {"above": 1.0}}), "ada", "why")


def test_dry_orders_are_kept_and_cannot_be_settled(store: TriggerStore) -> None:
    dry = section({"drift": {"above": 1.0}}, dry_run=True)
    store.decide(dry, seen(1.5), now=1.0)
    (found,) = store.orders()
    assert found.order.dry_run and not found.is_open
    with pytest.raises(ConfigError, match="is not open"):
        store.settle(dry, found.order.id, "succeeded")


def test_of_threads_that_decide_at_once_one_acts(store: TriggerStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for end in range(1, 11):
            scores = [1.5 if number % 2 else 0.5 for number in range(end)]
            decisions = list(pool.map(partial(store.decide, DRIFT, seen(*scores)), [float(end)] * 8))
            ordered = [one.order for one in decisions if one.order is not None]
            assert len(ordered) == (1 if scores[-1] > 1 else 0), scores
            for order in ordered:
                settle = partial(store.settle, DRIFT, order.id, "succeeded", "", 99.0)
                results = [one.result() for one in [pool.submit(settle) for _ in range(8)]]
                assert {one.settled_at for one in results} == {99.0}
    assert [one.order.number for one in store.orders()] == [5, 4, 3, 2, 1]


def test_requests_of_many_are_all_kept(store: TriggerStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda who: store.request(DRIFT, str(who), "why"), range(16)))
    assert sorted(int(one.who) for one in store.state("loop").requests) == list(range(16))


def decide_for_ever(url: str, started: Any) -> None:
    """In a process of its own, until it is killed: each window is drifted or not, by turns, for ever."""
    store = TriggerStore(open_records(url).engine)
    started.set()
    while True:
        number = store.state("loop").last_window + 1
        window = Window(number, float(number), {"drift/score": 1.5 if number % 2 else 0.5})
        store.decide(DRIFT, Seen("s", (window,)), now=float(number))
        for one in store.orders(limit=1):
            if one.is_open:
                store.settle(DRIFT, one.order.id, "succeeded", now=float(number))


@pytest.mark.slow
def test_killed_again_and_again_each_event_is_ordered_once(store: TriggerStore, database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        started = context.Event()
        process = context.Process(target=decide_for_ever, args=(database_url, started))
        process.start()
        assert started.wait(60)
        until, deadline = store.state("loop").last_window + 8, time.monotonic() + 60
        while store.state("loop").last_window < until and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
    state, orders = store.state("loop"), store.orders(limit=100_000)
    assert state.last_window >= 24
    assert sorted(one.order.window for one in orders) == list(range(1, state.last_window + 1, 2))
    assert sum(one.is_open for one in orders) == (1 if state.open_order else 0)
    assert len(orders) == state.num_orders


# What is seen of the records


def test_windows_are_those_of_the_watchs_newest_reference(records: Records) -> None:
    policy = section({"drift": {"above": 1.0}}, budget={"gpu_hours": 5})
    assert look(policy, records, 9.0, Seen(new_rows=3)).windows == ()
    assert metric_names("sums", records) is None
    for run_id, name, created_at in (("w-1", "sums", 1.0), ("w-2", "sums", 2.0), ("w-3", "sums-too", 3.0)):
        records.create_run(run_id, kind="watch", name=name, config={}, created_at=created_at)
    records.create_run("t-1", kind="train", name="sums", config={}, created_at=4.0)
    assert series_of("sums", records) == "w-2" and metric_names("sums", records) is None
    records.add_metrics(
        "w-2", [(2, 20.0, {"drift/score": 0.5}), (1, 10.0, {"drift/score": 1.5, "approval": 0.9})]
    )
    found = look(policy, records, 9.0, Seen(new_rows=3))
    assert found.series == "w-2" and found.new_rows == 3 and found.spending is not None
    assert found.windows == (
        Window(1, 10.0, {"drift/score": 1.5, "approval": 0.9}), Window(2, 20.0, {"drift/score": 0.5}),
    )  # fmt: skip
    assert metric_names("sums", records) == {"drift/score", "approval"}


def test_interactions_that_no_run_has_are_the_new_rows(records: Records) -> None:
    pool = InteractionPool(records.engine)
    rows = [PooledRow(str(n), float(n), None, None, None, ({"role": "user", "content": "?"},), "!", "answer", 1.0,
                      "ready" if n else "quarantined") for n in range(4)]  # fmt: skip
    pool.add(rows)
    policy = section({"new_rows": {"at_least": 3}})
    assert look(policy, records, 9.0, Seen()).new_rows == 3
    assert look(policy, records, 9.0, Seen(new_rows=7)).new_rows == 7, "who says it is believed"
    records.create_run("t-1", kind="train", name="sums", config={})
    pool.take("t-1", most=2)
    assert look(policy, records, 9.0, Seen()).new_rows == 1
    assert look(section({"age": {}}), records, 9.0, Seen()).new_rows is None


def test_people_are_told_of_orders_and_of_what_holds_them_back(store: TriggerStore) -> None:
    (told,) = alerts_of(DRIFT, store.decide(DRIFT, seen(1.5), now=1.0), 1.0)
    assert (told.kind, told.severity, told.event) == ("retraining", "info", "loop-000001")
    store.request(DRIFT, "ada", "why")
    assert alerts_of(DRIFT, store.decide(DRIFT, seen(1.5), now=2.0), 2.0) == [], "an open order is no news"
    store.settle(DRIFT, "loop-000001", "succeeded")
    tight = section({"any": [{"manual": True}]}, most={"orders": 1, "days": 30})
    (held,) = alerts_of(tight, store.decide(tight, Seen(), now=3.0), 3.0)
    assert (
        held.severity == "warning" and "1 orders in 30 days" in held.text and "asked for by ada" in held.text
    )

"""One look after another: an order is queued once, a dead job settles it, no part keeps another from its work."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from loops import NAME, Site, answered, make_site, pooled, rated, write_log
from queued import a_job

from raytrain.monitoring.drift.freezing import freeze, reference_place
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.section import SpendingSection
from raytrain.monitoring.triggers.store import Ordered, TriggerStore
from raytrain.pipeline.loop.chain import AwaitsApprovalError
from raytrain.pipeline.loop.opening import retrainings_of
from raytrain.pipeline.loop.round import Looker
from raytrain.runs.ownership import Owner
from raytrain.runs.queue.job import Job
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import Records


def job_of(ordered: Ordered) -> Job:
    return a_job(ordered.order.id, run_id=ordered.order.id)


def looker(site: Site) -> Looker:
    return Looker(site.loop, site.release, site.records, job_of)


def titles(home: Path) -> list[str]:
    return [json.loads(one.read_text())["title"] for one in sorted((home / "alerts").glob("*.json"))]


def test_what_is_seen_is_ordered_and_queued_once_whoever_looks(
    tmp_path: Path, records: Records, home: Path
) -> None:
    site = make_site(tmp_path, records, fall=None)
    assert looker(site).look(time.time()).queued is None
    InteractionPool(records.engine).add(pooled(0, 4))
    first = looker(site).look(time.time())
    assert (first.queued, first.blind) == ("grow-000001", [])
    assert [looker(site).look(time.time()).queued for _ in range(2)] == [None, None]
    (waiting,) = QueueStore(records.engine).jobs()
    assert (waiting.id, waiting.run_id) == ("grow-000001", "grow-000001")
    assert titles(home) == ["grow orders a retraining"]


def test_an_order_whose_looker_was_killed_before_its_job_was_there_is_queued_by_the_next(
    tmp_path: Path, records: Records
) -> None:
    site = make_site(tmp_path, records, fall=None)
    InteractionPool(records.engine).add(pooled(0, 4))

    def killed(_: Ordered) -> Job:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(looker(site), job_of=killed).look(time.time())
    assert TriggerStore(records.engine).orders()[0].is_open
    assert looker(site).look(time.time()).queued == "grow-000001"


def test_a_job_that_nobody_goes_on_with_settles_its_order(
    tmp_path: Path, records: Records, home: Path
) -> None:
    site = make_site(tmp_path, records, fall=None)
    InteractionPool(records.engine).add(pooled(0, 4))
    looker(site).look(time.time())
    QueueStore(records.engine).cancel("grow-000001")
    done = looker(site).look(time.time())
    assert done.settled == ["grow-000001"]
    (order, *_) = reversed(TriggerStore(records.engine).orders())
    assert order.outcome == "failed" and "cancelled" in str(order.why)
    told = (retrainings_of(site.release) / "grow-000001" / "record" / "record.md").read_bytes().decode()
    assert told.startswith("# grow-000001: failed") and "cancelled" in told and "no rows" in told
    assert "grow-000001 has failed" in titles(home)


def test_an_order_that_waits_for_people_stays_open(tmp_path: Path, records: Records) -> None:
    """Its job has ended, and would come to the same again; what they say lets the same command go on."""
    site = make_site(tmp_path, records, fall=None)
    InteractionPool(records.engine).add(pooled(0, 4))
    looker(site).look(time.time())
    records.create_run("grow-000001", kind="retrain", name="small", config={})
    records.set_state(
        "grow-000001", "failed", "approval", AwaitsApprovalError("w", why="y", fix="f").as_dict()
    )
    QueueStore(records.engine).cancel("grow-000001")
    assert looker(site).look(time.time()).settled == []
    assert TriggerStore(records.engine).orders()[0].is_open


def test_rows_of_another_name_are_not_its_own(tmp_path: Path, records: Records) -> None:
    site = make_site(tmp_path, records, fall=None)
    others = [replace(one, model=f"{NAME}-2@1.0.0") for one in pooled(0, 9)]
    InteractionPool(records.engine).add(others)
    done = looker(site).look(time.time())
    assert done.queued is None and not done.blind


def test_a_budget_that_is_spent_holds_a_retraining_back_and_is_told(
    tmp_path: Path, records: Records, home: Path
) -> None:
    site, now = make_site(tmp_path, records, fall=None), 1_700_000_000.0
    budget = SpendingSection(money=5.0, currency="EUR")
    triggers = site.loop.triggers.model_copy(update={"budget": budget})
    site = replace(site, loop=replace(site.loop, triggers=triggers))
    priced = {
        "scaling": {"num_workers": 2, "use_gpu": True},
        "cost": {"gpu_hour": 3.0, "currency": "EUR"},
    }
    records.create_run("before", kind="train", name="r", config=priced, created_at=now - 7200)
    records.claim_run("before", Owner.current(), now=now - 7200)
    records.set_state("before", "succeeded", now=now - 3600)
    InteractionPool(records.engine).add(pooled(0, 4))

    done = looker(site).look(now)
    assert (done.queued, done.blind) == (None, [])
    assert done.decision is not None and done.decision["order"] is None
    assert done.decision["blocked"] == ["6.00 of the month's 5 EUR are used"]
    assert titles(home) == ["grow would order a retraining, and may not"]
    assert QueueStore(records.engine).jobs() == [] and InteractionPool(records.engine).counts()["free"] == 4
    assert looker(site).look(now + 40 * 86400).queued == "grow-000001", "in the month after it may"


def test_a_request_that_no_parser_takes_keeps_no_part_from_its_work(tmp_path: Path, records: Records) -> None:
    site = make_site(tmp_path, records, fall={})
    site.promote("1.0.0")
    site.promote("1.1.0")
    deep = answered(1, time.time(), site.digest("1.1.0"), prompts=["[" * 5_000])
    write_log(site.loop.log, "requests", [deep])
    InteractionPool(records.engine).add(pooled(0, 4))
    done = looker(site).look(time.time() + 1)
    assert (done.queued, done.blind) == ("grow-000001", [])


def test_what_cannot_be_done_is_told_and_the_rest_is_done(
    tmp_path: Path, records: Records, home: Path
) -> None:
    """No reference is frozen, and nothing is in production yet; the order is made all the same."""
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump({"watch": "small", "window": {"rows": 10}}))
    site = make_site(tmp_path, records, watch="watch.yaml", learning={})
    InteractionPool(records.engine).add(pooled(0, 4))
    done = looker(site).look(time.time())
    assert [one.partition(":")[0] for one in done.blind] == ["watch", "collect"]
    assert done.queued == "grow-000001"
    assert {"the loop small cannot watch", "the loop small cannot collect"} <= set(titles(home))


def test_after_a_change_of_production_a_new_reference_is_frozen_of_what_came_since(
    tmp_path: Path, records: Records
) -> None:
    log, now = tmp_path / "log", time.time()
    watch = {
        "watch": "small", "model": NAME, "log": str(log), "window": {"rows": 10, "settle_s": 0}, "level": None,
        "falls": [{"feature": "approval", "by": 0.5}],
    }  # fmt: skip
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump(watch))
    site = make_site(tmp_path, records, watch="watch.yaml", fall=None, new_reference_rows=20)
    write_log(log, "requests", [answered(n, now - 500 + n, site.digest("1.0.0")) for n in range(30)])
    write_log(log, "feedback", [rated(n, now - 400 + n, "up" if n % 2 else "down") for n in range(30)])
    assert site.loop.watch is not None
    before = freeze(site.loop.watch, now=now, most=20).artifact.digest
    assert len(looker(site).look(now).windows) >= 1, "nothing was promoted: the reference stands"

    site.promote("1.0.0")
    later = time.time() + 10
    write_log(log, "requests", [answered(100 + n, later + n, site.digest("1.0.0")) for n in range(15)], "b")
    write_log(log, "feedback", [rated(100 + n, later + n, "up") for n in range(15)], "b")
    waiting = looker(site).look(later + 100)
    assert (waiting.waits_for_rows, waiting.windows, waiting.reference) == (5, [], None)
    write_log(
        log, "requests", [answered(200 + n, later + 20 + n, site.digest("1.0.0")) for n in range(18)], "c"
    )
    done = looker(site).look(later + 100)
    assert done.reference not in (None, before) and done.waits_for_rows is None
    assert [one["number"] for one in done.windows] == [1], "the first ten after the twenty of the reference"
    assert looker(site).look(later + 100).reference is None
    assert reference_place(site.loop.watch).exists()

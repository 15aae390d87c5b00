"""The queue in a real database of each kind: what persons ask, what schedulers claim, what carriers tell."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from queued import a_job

from raytrain.errors import ConfigError, RefusedError
from raytrain.runs.ownership import Owner
from raytrain.runs.queue.ending import Ended
from raytrain.runs.queue.job import Job, Limits, Need
from raytrain.runs.queue.leases import SchedulerRows
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import open_records

NO_LIMITS = Limits()


@pytest.fixture
def store(database_url: str) -> Iterator[QueueStore]:
    records = open_records(database_url)
    yield QueueStore(records.engine)
    records.close()


def start(store: QueueStore, now: float | None = None, room: Limits = NO_LIMITS) -> list[str]:
    return [job.id for job in store.start_what_fits("me", "here", room, now)[0]]


def test_a_job_comes_back_as_it_was_put_in(store: QueueStore) -> None:
    job = a_job(
        words=["train", "ünï.yaml", "train.seed=3"], need=Need(2.5, 1.0, 5 * 10**9), environment={"A": "b"},
        backend="ray", address="http://head:8265", package="/tmp/p.zip", run_id="sums-1a2b", priority="P0",
    )  # fmt: skip
    store.submit(job)
    assert store.get("job-1") == job
    assert store.get("job") == job
    assert store.jobs(states=["queued"], queue="default", user="ada") == [job]
    assert store.jobs(states=["running"]) == store.jobs(user="bob") == []


def test_names_that_fit_no_job_or_several(store: QueueStore) -> None:
    with pytest.raises(ConfigError, match="there is no job `job-1`") as caught:
        store.get("job-1")
    assert "no job was ever submitted" in caught.value.why
    for name in ("sums-1", "sums-2"):
        store.submit(a_job(name))
    with pytest.raises(ConfigError, match="fits 2 jobs"):
        store.get("sums")
    with pytest.raises(ConfigError) as caught:
        store.cancel("smus-1")
    assert caught.value.fix == "did you mean `sums-1`?"
    with pytest.raises(ConfigError):
        store.get("%")


def test_from_queued_to_succeeded(store: QueueStore) -> None:
    store.submit(a_job(now=100.0))
    (job,), _ = store.start_what_fits("me", "here", Limits(), 200.0)
    assert (job.state, job.started_at, job.num_starts, job.scheduler) == ("running", 200.0, 1, "me")
    carried = store.confirm(job.id, 1, Owner("here", 7, 1.0), now=201.0)
    assert carried is not None and carried.owner == Owner("here", 7, 1.0)
    assert store.confirm(job.id, 1, Owner("here", 8, 1.0)) is None, "one carrier alone"
    assert store.beat(job.id, 1, now=210.0) == (True, None)
    done = store.settle(job, Ended(0, None, "the last line"), now=300.0)
    assert done is not None
    assert (done.state, done.ended_at, done.exit_code, done.log_tail) == (
        "succeeded",
        300.0,
        0,
        "the last line",
    )
    assert store.settle(job, Ended(4)) is None, "it was settled before"
    assert store.beat(job.id, 1) == (False, None)


def test_what_is_told_of_an_earlier_start_is_not_heard(store: QueueStore) -> None:
    store.submit(a_job(now=100.0))
    (first,), _ = store.start_what_fits("me", "here", Limits(), 200.0)
    store.settle(first, Ended(None, "no process began it"), now=260.0)
    (second,), _ = store.start_what_fits("me", "here", Limits(), 261.0)
    assert (second.num_starts, second.num_losses) == (2, 1)
    assert store.confirm(first.id, 1, Owner("here", 7, 1.0)) is None, "the late carrier of the first start"
    assert store.confirm(first.id, 2, Owner("here", 8, 1.0)) is not None
    assert store.settle(first, Ended(0)) is None
    assert store.beat(first.id, 1) == (False, None)
    assert store.get(first.id).state == "running"


def test_what_is_put_back_belongs_to_no_process_any_more(store: QueueStore) -> None:
    store.submit(a_job(now=100.0))
    store.start_what_fits("me", "here", Limits(), 200.0)
    assert store.confirm("job-1", 1, Owner("there", 7, 1.0)) is not None
    again = store.settle(store.get("job-1"), Ended(None, "there is gone"), now=260.0)
    assert again is not None and (again.state, again.owner) == ("queued", None)
    store.start_what_fits("me", "here", Limits(), 270.0)
    assert store.confirm("job-1", 2, Owner("there", 8, 1.0)) is not None
    store.settle(store.get("job-1"), Ended(2), now=280.0)
    assert store.get("job-1").owner == Owner("there", 8, 1.0), "who carried it to its end stays known"
    assert store.retry("job-1").owner is None


def test_a_failed_job_waits_and_is_tried_again(store: QueueStore) -> None:
    store.submit(a_job(now=100.0, max_retries=1))
    (job,), _ = store.start_what_fits("me", "here", Limits(), 200.0)
    again = store.settle(job, Ended(4, None, "no node"), draw=0.5, now=210.0)
    assert again is not None and (again.state, again.ready_at, again.num_failures) == ("queued", 217.5, 1)
    assert start(store, 217.0) == []
    assert start(store, 218.0) == ["job-1"]
    last = store.settle(store.get("job-1"), Ended(4), now=220.0)
    assert last is not None and (last.state, last.exit_reason) == (
        "failed",
        "ended with exit code 4, after 1 retries",
    )
    assert store.retry("job-1", now=230.0).num_failures == 0
    assert start(store, 230.0) == ["job-1"]
    with pytest.raises(ConfigError, match="is running"):
        store.retry("job-1")


def test_cancelled_twice(store: QueueStore) -> None:
    for name in ("waits", "runs"):
        store.submit(a_job(name))
    assert store.cancel("waits").how == "at once"
    assert store.cancel("waits").how == "ended before"
    assert start(store) == ["runs"]
    assert store.cancel("runs").how == "asked"
    assert store.cancel("runs").how == "asked before"
    assert store.beat("runs", 1) == (True, "cancel")
    assert store.get("runs").label == "running (asked to save and end)"
    done = store.settle(store.get("runs"), Ended(143))
    assert done is not None and done.state == "cancelled"
    assert store.cancel("runs").how == "ended before"


def test_an_urgent_job_has_a_background_one_saved_and_put_back(store: QueueStore) -> None:
    store.set_queue("default", limits=Limits(running=1))
    store.submit(a_job("background", priority="P2"))
    assert start(store) == ["background"]
    store.submit(a_job("urgent", priority="P0"))
    started, choice = store.start_what_fits("me", "here", Limits())
    assert (started, choice.make_room) == ([], {"background": "urgent"})
    assert store.beat("background", 1) == (True, "preempt")
    assert store.start_what_fits("other", "here", Limits())[1].make_room == {}, "it is asked once"
    store.settle(store.get("background"), Ended(143))
    assert start(store) == ["urgent"]
    waiting = store.get("background")
    assert (waiting.state, waiting.wish, waiting.num_failures, waiting.num_losses) == ("queued", None, 0, 0)
    store.settle(store.get("urgent"), Ended(0))
    assert start(store) == ["background"]


def test_what_waits_gives_its_place_back_until_its_next_start(store: QueueStore) -> None:
    """As a retraining does, whose candidate is tried online for a day."""
    room, now = Limits(cpus=2), time.time()
    store.submit(a_job("trial", need=Need(2), run_id="grow-1", now=now - 60, max_retries=3))
    store.submit(a_job("other", need=Need(2), now=now - 30))
    assert not store.give_back("grow-1"), "it does not run"
    assert start(store, now, room) == ["trial"] and start(store, now, room) == []
    assert store.give_back("grow-1", now + 10) and not store.give_back("grow-1", now + 20)
    trial = store.get("trial")
    assert (trial.gave_back_at, trial.taken, trial.need) == (now + 10, Need(0), Need(2))
    assert "given its CPUs and GPUs back" in trial.label
    assert start(store, now + 30, room) == ["other"]

    # It is killed, and takes its place anew: it may have to train again.
    assert store.settle(trial, Ended(137), draw=0.0, now=now + 40) is not None
    assert start(store, now + 1_000, room) == []
    assert store.settle(store.get("other"), Ended(0)) is not None
    assert start(store, now + 1_000, room) == ["trial"]
    assert store.get("trial").gave_back_at is None and store.get("trial").taken == Need(2)


def test_states_and_limits_of_queues(store: QueueStore) -> None:
    with pytest.raises(ConfigError) as caught:
        store.submit(a_job(queue="nightly"))
    assert "`raytrain queue limit nightly` makes it" in caught.value.fix
    with pytest.raises(ConfigError):
        store.set_queue("nightly", state="paused")
    store.set_queue("nightly", limits=Limits(cpus=2, running=5))
    store.submit(a_job("fits", queue="nightly", need=Need(2)))
    with pytest.raises(ConfigError, match="can never run this job") as caught:
        store.submit(a_job("large", queue="nightly", need=Need(3)))
    assert "needs 3 CPUs, the queue's limit is 2" in caught.value.why
    assert "a lower scaling.num_workers or --cpus," in caught.value.fix
    store.set_queue("small", limits=Limits(memory_bytes=16_000_000_000))
    with pytest.raises(ConfigError, match="can never run this job") as caught:
        store.submit(a_job("hungry", queue="small", need=Need(1, 0, 24_000_000_000)))
    assert "needs 24 GB of memory, the queue's limit is 16" in caught.value.why
    assert "a lower --memory," in caught.value.fix
    with pytest.raises(ConfigError) as caught:
        store.submit(a_job(queue="nightyl"))
    assert caught.value.fix == "did you mean `nightly`?"
    store.set_queue("nightly", state="paused")
    assert start(store) == []
    assert store.look_ahead("here", Limits()).reasons == {"fits": "queue nightly is paused"}
    store.set_queue("nightly", state="draining")
    with pytest.raises(RefusedError, match="takes no jobs"):
        store.submit(a_job("late", queue="nightly"))
    assert start(store) == ["fits"], "what it has is worked off"
    assert store.queues()["nightly"].limits == Limits(cpus=2, running=5)


def test_one_run_waits_once(store: QueueStore) -> None:
    store.submit(a_job("one", run_id="sums-1a2b"))
    with pytest.raises(RefusedError, match="sums-1a2b is in the queue already"):
        store.submit(a_job("two", run_id="sums-1a2b"))
    store.cancel("one")
    store.submit(a_job("two", run_id="sums-1a2b"))
    with pytest.raises(RefusedError, match="sums-1a2b is in the queue already") as caught:
        store.retry("one")
    assert caught.value.why == "job two is queued"
    store.cancel("two")
    assert store.retry("one").state == "queued"


def test_the_lease_of_a_scheduler(store: QueueStore) -> None:
    rows = SchedulerRows(store.engine)
    rows.beat("me", Owner("there", 7, 1.0), now=100.0)
    rows.beat("me", Owner("there", 7, 1.0), now=150.0)
    (found,) = rows.all()
    assert (found.started_at, found.heartbeat_at) == (100.0, 150.0)
    assert found.is_alive(209.0, "here") and not found.is_alive(211.0, "here")
    store.submit(a_job(backend="ray"))
    (job,), _ = store.start_what_fits("me", "here", Limits())
    assert store.adopt(job, "you") and not store.adopt(job, "he"), "of two that would adopt it, one does"
    rows.forget("me")
    assert rows.all() == []


NUM_JOBS, NUM_SCHEDULERS, MOST_RUNNING = 40, 4, 3


def _schedule(url: str, name: str, barrier: Any, found: Any) -> None:
    """Start, confirm and settle until nothing is left; every start is told."""
    records = open_records(url)
    store, owner = QueueStore(records.engine), Owner.current()
    barrier.wait(60)
    starts: list[tuple[str, int]] = []
    most = 0
    while store.jobs(states=["queued", "running"], limit=1):
        for job in store.start_what_fits(name, "here", Limits())[0]:
            most = max(most, len(store.jobs(states=["running"])))
            if store.confirm(job.id, job.num_starts, owner) is None:
                continue
            starts.append((job.id, job.num_starts))
            # Every second job fails at its first try.
            code = 4 if job.num_starts == 1 and int(job.id.rpartition("-")[2]) % 2 else 0
            store.settle(job, Ended(code), now=time.time() - 3600)
    found.put((name, starts, most))
    records.close()


@pytest.mark.slow
def test_schedulers_on_one_database_never_start_a_job_twice(database_url: str) -> None:
    """Processes of their own, all at once, over a limit that only one transaction at a time can keep."""
    records = open_records(database_url)
    store = QueueStore(records.engine)
    store.set_queue("default", limits=Limits(running=MOST_RUNNING))
    for i in range(NUM_JOBS):
        store.submit(a_job(f"job-{i}"))
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(NUM_SCHEDULERS), context.Queue()
    processes = [
        context.Process(target=_schedule, args=(database_url, f"scheduler-{i}", barrier, found))
        for i in range(NUM_SCHEDULERS)
    ]
    for one in processes:
        one.start()
    told = [found.get(timeout=200) for _ in processes]
    for one in processes:
        one.join(60)
    starts = Counter(start for _, many, _ in told for start in many)
    expected = {(f"job-{i}", 1) for i in range(NUM_JOBS)} | {(f"job-{i}", 2) for i in range(1, NUM_JOBS, 2)}
    assert set(starts) == expected and set(starts.values()) == {1}
    assert max(most for _, _, most in told) <= MOST_RUNNING
    assert sum(bool(many) for _, many, _ in told) > 1, "one scheduler did all the work, nothing was shown"
    assert {job.state for job in store.jobs()} == {"succeeded"}
    assert [job.num_starts for job in store.jobs() if job.id == "job-3"] == [2]
    records.close()


def test_every_field_of_a_job_has_a_column() -> None:
    from dataclasses import fields

    from raytrain.runs import tables

    beside = {"need", "owner"}
    assert {one.name for one in fields(Job)} - beside <= set(tables.queue_jobs.c.keys())

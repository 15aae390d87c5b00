"""Jobs on a cluster that answers late, not at all, or with what nobody hoped for.

With a real cluster: tests/integration/test_submit.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from queued import a_job

from raytrain.cluster.token import wrong_token
from raytrain.errors import ClusterError
from raytrain.runs.queue import ray_jobs
from raytrain.runs.queue.ending import Ended
from raytrain.runs.queue.job import Job, Limits, Need
from raytrain.runs.queue.leases import SchedulerRows
from raytrain.runs.queue.ray_jobs import RayBackend
from raytrain.runs.queue.scheduler import Scheduler
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import open_records

HEAD = "http://head:8265"


@dataclass
class Cluster:
    """What Ray's client tells of it, start by start; `error` is raised instead."""

    states: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None
    stopped: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What happens elsewhere while this call goes on."""
    answer: Any = None
    """What it says of its nodes."""
    num_asked: int = 0

    def connect(self, *_: Any, **__: Any) -> Cluster:
        self._check()
        return self

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _do_request(self, method: str, endpoint: str) -> SimpleNamespace:
        self._check()
        assert (method, endpoint.partition("?")[0]) == ("GET", "/api/v0/nodes")
        self.num_asked += 1
        return SimpleNamespace(json=lambda: self.answer)

    def get_job_info(self, name: str) -> SimpleNamespace:
        self._check()
        if name not in self.states:
            raise RuntimeError(f"Request failed with status code 404: Job {name} does not exist.")
        return SimpleNamespace(status=self.states[name], driver_exit_code=None, message="")

    def get_job_logs(self, name: str) -> str:
        return f"the log of {name}"

    def stop_job(self, name: str) -> None:
        self._check()
        self.stopped.append(name)

    def _upload_package_if_needed(self, package: str, **_: Any) -> str:
        self._check()
        self.meanwhile.get("upload", lambda: None)()
        return "gcs://package.zip"

    def submit_job(self, *, submission_id: str, runtime_env: Any, **_: Any) -> str:
        self._check()
        self.meanwhile.get("submit", lambda: None)()
        self.states[submission_id] = "PENDING"
        self.variables = runtime_env["env_vars"]
        return submission_id


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(ray_jobs, "connect_jobs", found.connect)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QueueStore]:
    records = open_records(f"sqlite:///{tmp_path / 'queue.db'}")
    yield QueueStore(records.engine)
    records.close()


@pytest.fixture
def scheduler(store: QueueStore) -> Scheduler:
    return Scheduler(store, {"ray": RayBackend()}, Limits(), lambda _: None)


@pytest.fixture
def a_package(tmp_path: Path) -> str:
    place = tmp_path / "package.zip"
    place.write_bytes(b"a folder")
    return str(place)


def submitted(store: QueueStore, **values: Any) -> Job:
    return store.submit(a_job("far", backend="ray", address=HEAD, **values))


def test_a_cluster_out_of_reach_costs_a_job_nothing_but_time(
    store: QueueStore, scheduler: Scheduler, cluster: Cluster
) -> None:
    now = submitted(store, max_retries=0).ready_at + 1.0
    cluster.error = ClusterError(f"no Ray cluster answers at {HEAD}", why="connection refused", fix="look")
    for _ in range(9):
        scheduler.tick(now)
        job = store.get("far")
        assert (job.state, job.num_losses, job.num_failures) == ("queued", 0, 0), job.exit_reason
        assert "no Ray cluster answers" in (job.exit_reason or "")
        now = job.ready_at + 1.0
    cluster.error = None
    scheduler.tick(now)
    assert store.get("far").state == "running"


def test_an_earlier_start_that_has_done_the_job_meanwhile(
    store: QueueStore, scheduler: Scheduler, cluster: Cluster
) -> None:
    """The cluster was out of reach for so long that the job counted as lost; it went on there and is done."""
    submitted(store, num_starts=1)
    cluster.states["far-1"] = "SUCCEEDED"
    scheduler.tick()
    job = store.get("far")
    assert (job.state, job.log_tail) == ("succeeded", "the log of far-1")
    assert "far-2" not in cluster.states


def test_an_earlier_start_that_still_saves(store: QueueStore, scheduler: Scheduler, cluster: Cluster) -> None:
    submitted(store, num_starts=1, num_losses=5)
    cluster.states["far-1"] = "RUNNING"
    scheduler.tick()
    job = store.get("far")
    assert (job.state, job.num_losses, cluster.stopped) == ("queued", 5, ["far-1"])
    cluster.states["far-1"] = "STOPPED"
    scheduler.tick(job.ready_at + 1.0)
    assert (store.get("far").state, cluster.states["far-3"]) == ("running", "PENDING")


def test_a_scheduler_without_the_token_burns_no_job(
    store: QueueStore, scheduler: Scheduler, cluster: Cluster
) -> None:
    now = submitted(store).ready_at + 1.0
    cluster.error = wrong_token(HEAD, is_missing=False)
    scheduler.tick(now)
    waiting = store.get("far")
    assert (waiting.state, waiting.num_losses) == ("queued", 0)
    assert "refuses the token" in (waiting.exit_reason or "")
    cluster.error = None
    now = waiting.ready_at + 1.0
    scheduler.tick(now)
    cluster.error = wrong_token(HEAD, is_missing=False)
    other = Scheduler(store, {"ray": RayBackend()}, Limits(), lambda _: None)
    scheduler.end()
    for later in (60.0, 130.0, 1000.0):
        assert other.tick(now + later).settled == []
    assert (store.get("far").state, store.get("far").num_starts) == ("running", waiting.num_starts + 1)


def test_an_error_that_says_nothing_is_told_by_its_kind(cluster: Cluster) -> None:
    backend, job = RayBackend(), a_job("far", backend="ray", address=HEAD, num_starts=1)
    cluster.error = ConnectionResetError()
    assert backend.look(job, 100.0) is None
    ended = backend.look(job, 161.0)
    assert ended is not None and ended.reason == "its cluster is gone: ConnectionResetError"


@pytest.mark.parametrize(
    ("call", "begun", "stopped"), [("upload", set(), []), ("submit", {"far-1"}, ["far-1"])]
)
def test_a_start_that_was_given_up_elsewhere_while_it_was_on_its_way(
    store: QueueStore,
    scheduler: Scheduler,
    cluster: Cluster,
    a_package: str,
    call: str,
    begun: set[str],
    stopped: list[str],
) -> None:
    """Its scheduler was silent for long, another took the job, found nothing of it, and put it back."""
    submitted(store, package=a_package)
    cluster.meanwhile[call] = lambda: store.settle(
        store.get("far"), Ended(None, "the cluster does not know it")
    )
    scheduler.tick()
    assert (set(cluster.states), cluster.stopped) == (begun, stopped)


def test_a_scheduler_lives_however_long_a_look_takes(
    store: QueueStore, scheduler: Scheduler, cluster: Cluster, a_package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raytrain.runs.queue.scheduler.BEAT_EVERY_S", 0.05)
    rows, found = SchedulerRows(store.engine), []

    def upload() -> None:
        began = rows.all()[0].heartbeat_at
        deadline = time.monotonic() + 10.0
        while rows.all()[0].heartbeat_at == began and time.monotonic() < deadline:
            time.sleep(0.02)
        found.append(rows.all()[0].heartbeat_at - began)

    submitted(store, package=a_package)
    cluster.meanwhile["upload"] = upload
    with scheduler.working():
        scheduler.tick()
    assert found and found[0] > 0.0
    assert rows.all() == [], "it has left"


def test_a_job_on_a_cluster_knows_that_it_is_one(
    store: QueueStore, scheduler: Scheduler, cluster: Cluster
) -> None:
    submitted(store, environment={"A": "b"})
    scheduler.tick()
    assert cluster.variables.items() >= {"A": "b", "RAYTRAIN_QUEUE_JOB": "far"}.items()


def test_what_is_on_another_machine_is_left_to_that_one(
    store: QueueStore, cluster: Cluster, tmp_path: Path, a_package: str
) -> None:
    lines: list[str] = []
    scheduler = Scheduler(store, {"ray": RayBackend()}, Limits(), lines.append)
    gone = str(tmp_path / "gone")
    store.submit(a_job("folder", folder=gone))
    store.submit(a_job("package", backend="ray", address=HEAD, package=gone))
    store.submit(a_job("here", backend="ray", address=HEAD, package=a_package, folder=gone))
    for _ in range(2):
        reasons = scheduler.tick().choice.reasons
    assert {job.id: job.state for job in store.jobs()} == {
        "folder": "queued", "package": "queued", "here": "running"
    }  # fmt: skip
    assert f"its folder {gone} is not on" in reasons["folder"]
    assert f"its package {gone} is not on" in reasons["package"]
    assert sum("is passed over" in line for line in lines) == 2, "each is told once"


# What a cluster has


def nodes(*cpus: float, **more: Any) -> dict[str, Any]:
    """As Ray's state API lists them."""
    found = [
        {"state": "ALIVE", "resources_total": {"CPU": one, "memory": 1e9}, "labels": {}, **more}
        for one in cpus
    ]
    return {"result": True, "data": {"result": {"result": found}}}


def test_no_more_starts_than_the_cluster_has_cpus(
    store: QueueStore, scheduler: Scheduler, cluster: Cluster
) -> None:
    cluster.answer = nodes(1.0, 3.0)
    now = time.time() + 1.0
    for i in range(4):
        store.submit(
            a_job(f"far-{i}", backend="ray", address=HEAD, need=Need(2.0), created_at=now - 10.0 + i)
        )
    tick = scheduler.tick(now)
    assert [job.id for job in tick.started] == ["far-0", "far-1"]
    assert tick.choice.reasons["far-2"] == f"needs 2 CPUs, the cluster at {HEAD} has 0 of 4 free"
    cluster.states["far-0-1"] = "SUCCEEDED"
    assert [job.id for job in scheduler.tick(now + 1.0).started] == ["far-2"]
    assert cluster.num_asked == 1, "what it has said is known for a while"
    cluster.answer = nodes(1.0, 3.0, 2.0)
    assert [job.id for job in scheduler.tick(now + 60.0).started] == ["far-3"], "a node came"


@pytest.mark.parametrize(
    "answer",
    [
        nodes(1.0, labels={"ray.io/node-group": "small"}),
        nodes(),
        nodes(1.0, state="DEAD"),
        {"result": False, "msg": "too many", "data": None},
        ["nothing", "of", "the", "kind"],
    ],
    ids=["it may grow", "no nodes", "a dead node", "a refusal", "another answer"],
)
def test_a_cluster_that_may_grow_or_does_not_say_limits_nothing_here(
    store: QueueStore, scheduler: Scheduler, cluster: Cluster, answer: Any
) -> None:
    cluster.answer = answer
    for i in range(3):
        store.submit(a_job(f"far-{i}", backend="ray", address=HEAD))
    assert len(scheduler.tick().started) == 3


def test_a_cluster_that_does_not_answer_is_asked_again(cluster: Cluster) -> None:
    backend = RayBackend()
    cluster.error = ClusterError(f"no Ray cluster answers at {HEAD}", why="connection refused", fix="look")
    assert backend.room(HEAD, 100.0) is None
    cluster.error, cluster.answer = None, nodes(4.0)
    assert backend.room(HEAD, 101.0) == Limits(cpus=4.0, gpus=0.0)
    cluster.error = ConnectionResetError()
    assert backend.room(HEAD, 105.0) == Limits(cpus=4.0, gpus=0.0)
    assert backend.room(HEAD, 150.0) is None

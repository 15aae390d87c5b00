"""What every back end of the queue must do, with real commands in real processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queued import a_job

from raytrain.runs.queue.backend import Backend
from raytrain.runs.queue.job import Job, Limits
from raytrain.runs.queue.scheduler import Scheduler
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import open_records

LONG = ["queue", "drain", "another", "--wait"]
"""Waits until a queue is empty that never is; like any process, it ends at SIGTERM."""

NO_DATABASE = {"RAYTRAIN_DATABASE": "sqlite:////proc/nowhere/raytrain.db"}
"""Exit code 4, which is tried again."""


@dataclass
class Carried:
    """A queue of its own with one scheduler, and what its jobs are given."""

    backend: Backend
    values: Mapping[str, Any]
    environment: Mapping[str, str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.records = open_records()
        self.store = QueueStore(self.records.engine)
        self.store.set_queue("another", limits=Limits(running=0))
        self.store.submit(a_job("never", queue="another"))
        self.scheduler = self.new_scheduler()

    def new_scheduler(self) -> Scheduler:
        name = self.values["backend"]
        return Scheduler(self.store, {name: self.backend}, Limits(), self.lines.append)

    def submit(self, job_id: str, words: list[str], **values: Any) -> None:
        environment = {**self.environment, **values.pop("environment", {})}
        self.store.submit(a_job(job_id, words=words, environment=environment, **{**self.values, **values}))

    def until(self, job_id: str, *states: str, within_s: float = 90.0) -> Job:
        """Look again and again until the job is in one of the states."""
        deadline = time.monotonic() + within_s
        while True:
            self.scheduler.tick()
            job = self.store.get(job_id)
            if job.state in states:
                return job
            assert time.monotonic() < deadline, f"{job_id} is {job.label} ({job.exit_reason})\n" + "\n".join(
                self.lines
            )
            time.sleep(0.2)

    def until_it_works(self, job_id: str, within_s: float = 90.0) -> Job:
        """Until the command itself has begun."""
        raise NotImplementedError


class BackendContract:
    """A subclass gives the fixture `carried`."""

    def test_success_with_the_end_of_the_log(self, carried: Carried, tmp_path: Path) -> None:
        carried.submit("fine", ["runs", "list", "--json"])
        job = carried.until("fine", "succeeded", "failed")
        assert (job.state, job.exit_code, job.exit_reason) == ("succeeded", 0, None)
        assert '"total": 0' in (job.log_tail or "")

    def test_a_fault_of_the_command_is_not_tried_again(self, carried: Carried) -> None:
        carried.submit("wrong", ["runs", "show", "nothing"])
        job = carried.until("wrong", "succeeded", "failed")
        assert (job.state, job.exit_code, job.num_starts) == ("failed", 2, 1)
        assert "there is no run `nothing`" in (job.log_tail or "")

    def test_a_failure_is_tried_again_after_a_while(self, carried: Carried) -> None:
        carried.submit("shaky", ["runs", "list"], environment=NO_DATABASE, max_retries=1)
        carried.until("shaky", "running")
        job = carried.until("shaky", "queued", "failed")
        assert (job.state, job.exit_code, job.num_failures) == ("queued", 4, 1)
        assert 4.0 < job.ready_at - (job.ended_at or 0.0) < 10.0
        job = carried.until("shaky", "failed")
        assert (job.num_starts, job.exit_reason) == (2, "ended with exit code 4, after 1 retries")

    def test_cancelled_while_it_runs(self, carried: Carried) -> None:
        carried.submit("long", LONG)
        carried.until_it_works("long")
        assert carried.store.cancel("long").how == "asked"
        job = carried.until("long", "cancelled", "succeeded", "failed")
        assert (job.state, job.exit_reason) == ("cancelled", "cancelled while it ran")

    def test_an_urgent_job_takes_the_place_of_a_background_one(self, carried: Carried) -> None:
        carried.store.set_queue("default", limits=Limits(running=1))
        carried.submit("background", LONG, priority="P2")
        carried.until_it_works("background")
        carried.submit("urgent", ["runs", "list"], priority="P0")
        assert carried.until("urgent", "succeeded", "failed").state == "succeeded"
        again = carried.until("background", "running")
        assert (again.num_starts, again.num_failures, again.num_losses) == (2, 0, 0)
        carried.store.cancel("background")
        assert carried.until("background", "cancelled", "failed").state == "cancelled"

    def test_the_next_scheduler_goes_on_where_one_left(self, carried: Carried) -> None:
        carried.submit("long", LONG)
        carried.until_it_works("long")
        carried.scheduler.end()
        carried.scheduler = carried.new_scheduler()
        carried.scheduler.tick()
        assert carried.store.get("long").num_starts == 1, f"it was begun a second time: {carried.lines}"
        carried.store.cancel("long")
        assert carried.until("long", "cancelled", "failed").state == "cancelled"

    def test_what_cannot_begin_says_why(self, carried: Carried) -> None:
        with self.failing_starts(carried):
            carried.submit("stuck", ["runs", "list"], **self.values_of_a_failing_start())
            carried.scheduler.tick()
            job = carried.store.get("stuck")
        assert (job.state, job.num_losses, job.num_failures) == ("queued", 0, 0), "nothing was lost"
        assert job.ready_at > time.time(), "it is not tried again at once"
        assert "could not be started" in (job.exit_reason or "")

    def failing_starts(self, carried: Carried) -> AbstractContextManager[None]:
        """A fault that could really be."""
        raise NotImplementedError

    def values_of_a_failing_start(self) -> dict[str, Any]:
        return {}

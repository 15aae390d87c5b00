"""Jobs as processes of this machine, and what is left when one of them dies without a word."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from queue_contract import LONG, BackendContract, Carried

from raytrain.runs.ownership import Owner
from raytrain.runs.queue.job import Job, Limits
from raytrain.runs.queue.local import LocalBackend, log_file

pytestmark = pytest.mark.slow


class CarriedHere(Carried):
    def until_it_works(self, job_id: str, within_s: float = 90.0) -> Job:
        self.until(job_id, "running", within_s=within_s)
        deadline = time.monotonic() + within_s
        while "jobs are left" not in (log := log_file(self.store.get(job_id))).read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return self.store.get(job_id)

    def child(self, job: Job) -> psutil.Process:
        """The command's process, below its carrier."""
        assert job.owner is not None
        (child,) = psutil.Process(job.owner.pid).children()
        return child


@pytest.fixture
def carried(home: Path, tmp_path: Path) -> Iterator[CarriedHere]:
    folder = {"backend": "local", "folder": str(tmp_path)}
    found = CarriedHere(LocalBackend(socket.gethostname()), folder, {})
    yield found
    for job in found.store.jobs(states=["running"]):
        if job.owner is not None:
            with suppress(ProcessLookupError):
                os.killpg(job.owner.pid, signal.SIGKILL)
    found.records.close()


class TestContract(BackendContract):
    @contextmanager
    def failing_starts(self, carried: Carried) -> Iterator[None]:
        place = Path(os.environ["RAYTRAIN_HOME"]) / "queue"
        place.write_text("a file where the folder of logs should be")
        yield
        place.unlink()

    def test_a_start_that_failed_is_made_up_for(self, carried: CarriedHere) -> None:
        self.test_what_cannot_begin_says_why(carried)
        assert carried.until("stuck", "succeeded", "failed").state == "succeeded"


def test_a_killed_command_is_tried_again(carried: CarriedHere) -> None:
    carried.submit("long", LONG)
    carried.child(carried.until_it_works("long")).kill()
    job = carried.until("long", "queued", "failed")
    assert (job.state, job.exit_code, job.num_failures) == ("queued", -9, 1)
    assert "killed (out of memory" in (job.exit_reason or "")
    carried.store.cancel("long")


def test_an_orphan_is_found_and_put_back_when_nothing_of_it_lives(carried: CarriedHere) -> None:
    """kill -9 of the carrier: the command is told by the system to save and end, and only then is it begun anew."""
    carried.submit("long", LONG)
    job = carried.until_it_works("long")
    child = carried.child(job)
    assert job.owner is not None
    os.kill(job.owner.pid, signal.SIGKILL)
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    again = carried.until("long", "queued", "failed")
    assert (again.state, again.num_losses, again.num_failures) == ("queued", 1, 0)
    assert "is gone" in (again.exit_reason or "")
    assert carried.until("long", "running").num_starts == 2
    carried.store.cancel("long")
    carried.until("long", "cancelled")


def test_an_orphan_of_another_machine_is_put_back_when_it_falls_silent(carried: CarriedHere) -> None:
    carried.submit("far", LONG, now=time.time() - 200.0)
    (job,), _ = carried.store.start_what_fits("there-1", "there", Limits(), time.time() - 100.0)
    assert carried.store.confirm(job.id, 1, Owner("there", 7, 1.0), now=time.time() - 59.0)
    found = carried.store.get("far")
    backend = LocalBackend("here")
    assert backend.look(found, time.time()) is None
    ended = backend.look(found, time.time() + 2.0)
    assert ended is not None and ended.exit_code is None
    assert "process 7 on there" in (ended.reason or "")


def test_a_start_that_no_carrier_confirmed_is_void(
    carried: CarriedHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the scheduler was killed between its claim and the process."""
    carried.submit("fine", ["runs", "list"], now=time.time() - 200.0)
    (job,), _ = carried.store.start_what_fits("dead", "here", Limits(), time.time() - 100.0)
    again = carried.until("fine", "succeeded", "failed")
    assert (again.state, again.num_starts, again.num_losses) == ("succeeded", 2, 1)
    carried.backend.start(job, lambda: True)  # its carrier comes after all
    deadline = time.monotonic() + 60
    while "is void" not in log_file(job).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert carried.store.get("fine") == again


def test_a_command_that_does_not_end_is_killed_in_the_end(
    carried: CarriedHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still, as a process in the middle of a broken disk does."""
    monkeypatch.setenv("RAYTRAIN_STOP_WITHIN_S", "2")
    carried.submit("long", LONG)
    job = carried.until_it_works("long")
    carried.child(job).suspend()
    carried.store.cancel("long")
    job = carried.until("long", "cancelled", "failed")
    assert (job.state, job.exit_code) == ("cancelled", -9)
    assert "killed: it had not ended" in (job.log_tail or "")


def test_a_background_job_that_is_slow_to_save_goes_back_all_the_same(
    carried: CarriedHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTRAIN_STOP_WITHIN_S", "2")
    carried.store.set_queue("default", limits=Limits(running=1))
    carried.submit("background", LONG, priority="P2", max_retries=0)
    carried.child(carried.until_it_works("background")).suspend()
    carried.submit("urgent", ["runs", "list"], priority="P0")
    job = carried.until("background", "queued", "failed")
    assert (job.state, job.num_failures, job.num_losses) == ("queued", 0, 0)
    assert (
        job.exit_reason == "made room for an urgent job, killed: it had not ended 2 s after it was asked to"
    )
    carried.store.cancel("background")


def test_a_folder_that_is_gone(carried: CarriedHere, tmp_path: Path) -> None:
    """It may be on another machine, or come back; nothing fails meanwhile."""
    carried.submit("lost", ["runs", "list"], folder=str(tmp_path / "gone"))
    carried.scheduler.tick()
    job = carried.store.get("lost")
    assert (job.state, job.num_starts) == ("queued", 0)
    assert any("lost is passed over: its folder" in line for line in carried.lines)
    (tmp_path / "gone").mkdir()
    assert carried.until("lost", "failed", "succeeded").state == "succeeded"

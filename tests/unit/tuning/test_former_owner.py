"""A trial whose search was killed, and which another process may still carry when its successor begins."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from raytrain.errors import TrainingError
from raytrain.runs.ownership import Owner
from raytrain.runs.records import Records, open_records
from raytrain.tuning import trial
from raytrain.tuning.trial import wait_for_former_owner


@pytest.fixture
def records() -> Records:
    found = open_records()
    found.create_run("search-0000", kind="train", name="trial", config={})
    return found


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this machine."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait(30)


def carried_by(records: Records, process: subprocess.Popen[bytes]) -> None:
    here = Owner.current()
    records.claim_run("search-0000", Owner(here.host, process.pid, psutil.Process(process.pid).create_time()))


def seconds_waited(records: Records, run_id: str = "search-0000") -> float:
    since = time.monotonic()
    wait_for_former_owner(records, run_id)
    return time.monotonic() - since


def test_nobody_is_waited_for_where_the_trial_has_not_begun_or_is_ones_own(records: Records) -> None:
    assert seconds_waited(records, "search-0001") < 0.4
    assert seconds_waited(records) < 0.4
    records.claim_run("search-0000", Owner.current())
    assert seconds_waited(records) < 0.4, "Ray Tune may start it again in the same process"


def test_its_end_is_waited_for(records: Records, other: subprocess.Popen[bytes]) -> None:
    carried_by(records, other)
    ender = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(1.0); os.kill({other.pid}, 9)"]
    )
    assert 0.9 < seconds_waited(records) < 20.0
    assert ender.wait(30) == 0
    run = records.get_run("search-0000")
    assert (run.state, run.owner_gone) == ("failed", True)
    records.claim_run("search-0000", Owner.current())  # and is this process's now


def test_one_that_ended_with_its_word_is_not_waited_for(
    records: Records, other: subprocess.Popen[bytes]
) -> None:
    carried_by(records, other)
    records.set_state("search-0000", "cancelled", "asked to stop")
    assert seconds_waited(records) < 0.4


def test_one_that_goes_on_is_told_with_what_ends_it(
    records: Records, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_FORMER_OWNER_GOES_WITHIN_S", 0.6)
    carried_by(records, other)
    with pytest.raises(TrainingError, match="run search-0000 is still carried by another process") as caught:
        wait_for_former_owner(records, "search-0000")
    assert "raytrain runs stop search-0000" in caught.value.fix
    assert records.get_run("search-0000").state == "running", "and is left alone"

"""The driver's book, the words for what Ray raises, and the watch for signals; all without Ray's workers."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from raytrain.errors import ClusterError, StorageError, TrainingError
from raytrain.runs.ownership import Owner
from raytrain.runs.records import Records, open_records
from raytrain.runs.section import TrackingSection
from raytrain.runs.signals import SignalWatch
from raytrain.runs.sinks.build import build_sinks
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location
from raytrain.training.ledger import Ledger, group_note


class Seeing:
    """Keeps what an observer is shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.stop: str | None = None

    def phase(self, text: str, seconds: float | None) -> None:
        self.seen.append(("phase", text, seconds))

    def plan(self, **plan: Any) -> None:
        self.seen.append(("plan", plan["max_steps"], plan["global_step"]))

    def metrics(self, global_step: int, metrics: dict[str, float]) -> None:
        self.seen.append(("metrics", global_step))

    def note(self, text: str) -> None:
        self.seen.append(("note", text))

    def stop_reason(self) -> str | None:
        return self.stop


@pytest.fixture
def records() -> Records:
    records = open_records()
    records.create_run("r-1", kind="train", name="r", config={}, config_digest="sha256:c")
    return records


@pytest.fixture
def ledger(records: Records) -> Ledger:
    owner = Owner.current()
    run = records.claim_run("r-1", owner)
    sinks = build_sinks(TrackingSection(tensorboard=False), run, records, warn=lambda _text: None)
    sinks.open()
    return Ledger("r-1", owner, records, sinks, Seeing())


def seen(ledger: Ledger) -> list[tuple[Any, ...]]:
    assert isinstance(ledger.observer, Seeing)
    return ledger.observer.seen


PLAN: dict[str, Any] = {
    "max_steps": 9,
    "num_rows": 5,
    "num_validation_rows": 1,
    "num_trainable": 7,
    "global_step": 4,
    "told_before": [],
    "tokens": {"digest": "sha256:t", "uri": "/t", "parents": {"dataset": "sha256:d"}},
    "dropped": {},
}


def take_steps(ledger: Ledger, *steps: int) -> None:
    for step in steps:
        ledger.take(
            "metrics", {"global_step": step, "time": float(step), "metrics": {"train/loss": 1 / step}}
        )


def test_metrics_reach_records_file_and_eyes(ledger: Ledger, records: Records) -> None:
    take_steps(ledger, 1, 2)
    ledger.sinks.close("succeeded")
    assert [point.global_step for point in records.metrics("r-1")["train/loss"]] == [1, 2]
    assert seen(ledger) == [("metrics", 1), ("metrics", 2)]
    assert (ledger.global_step, ledger.first_step_at) == (2, 1.0)


def begin_anew(ledger: Ledger, written: str = "") -> None:
    """As another driver of the run does; `written` is what this one had last in the file alone."""
    ledger.sinks.close("running")
    with (run_folder("r-1") / "metrics.jsonl").open("a") as file:
        file.write(written)
    run = ledger.records.get_run("r-1")
    ledger.sinks = build_sinks(
        TrackingSection(tensorboard=False), run, ledger.records, warn=lambda _text: None
    )
    ledger.sinks.open()


def test_a_resume_takes_back_the_steps_after_its_checkpoint(ledger: Ledger, records: Records) -> None:
    take_steps(ledger, 1, 2, 3)
    ledger.take("resumed", {"global_step": 2, "uri": "/c", "digest": "sha256:c"})
    ledger.take("plan", PLAN | {"global_step": 2})
    assert ledger.global_step == 2
    take_steps(ledger, 3)
    ledger.sinks.close("succeeded")
    assert [point.global_step for point in records.metrics("r-1")["train/loss"]] == [1, 2, 3]
    assert ("resumed_from", "read") in [(use.role, use.direction) for use in records.artifacts("r-1")]


def test_workers_that_die_before_the_first_checkpoint_begin_again(ledger: Ledger, records: Records) -> None:
    take_steps(ledger, 1, 2, 3)
    ledger.take("plan", PLAN | {"global_step": 0})
    take_steps(ledger, 1)
    ledger.sinks.close("succeeded")
    assert [point.global_step for point in records.metrics("r-1")["train/loss"]] == [1]


def test_what_the_workers_told_nobody_is_told_again_from_their_checkpoint(
    ledger: Ledger, records: Records
) -> None:
    """A driver that had written steps 1 and 2 was killed, 3 in the file alone; its workers went on to step 4."""
    take_steps(ledger, 1, 2)
    begin_anew(ledger, '{"global_step": 3, "time": 3.0, "metrics": {"train/loss": 0.3}}\n')
    points = [
        {"global_step": step, "time": float(step), "metrics": {"train/loss": 1 / step}}
        for step in (1, 2, 3, 4)
    ]
    ledger.take("plan", PLAN | {"told_before": points})
    take_steps(ledger, 5)
    ledger.sinks.close("succeeded")
    found = records.metrics("r-1")["train/loss"]
    assert [(one.global_step, one.value, one.time) for one in found] == [
        (step, 1 / step, float(step)) for step in (1, 2, 3, 4, 5)
    ]
    lines = (run_folder("r-1") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["global_step"] for line in lines] == [1, 2, 3, 4, 5]


def test_what_the_records_have_is_not_written_again(ledger: Ledger, records: Records) -> None:
    """Trackers that take nothing back would show it twice."""
    take_steps(ledger, 1, 2, 3)
    begin_anew(ledger)
    others = [{"global_step": step, "time": 9.0, "metrics": {"train/loss": 9.0}} for step in (1, 2)]
    ledger.take("plan", PLAN | {"global_step": 2, "told_before": others})
    ledger.sinks.close("succeeded")
    assert [point.value for point in records.metrics("r-1")["train/loss"]] == [1.0, 0.5]


def test_rows_that_were_left_out_are_told(ledger: Ledger) -> None:
    ledger.take("plan", PLAN | {"dropped": {"too_long": 3}})
    assert ("note", "3 training rows are left out: too long") in seen(ledger)


def take_group(ledger: Ledger, *pids: int, max_workers: int = 2) -> None:
    for rank, pid in enumerate(pids):
        sizes = {"world_size": len(pids), "max_workers": max_workers}
        ledger.take("worker", {"world_rank": rank, "node": "n", "pid": pid, **sizes})


def notes(ledger: Ledger) -> list[str]:
    return [text for kind, text, *_ in seen(ledger) if kind == "note"]


def test_a_second_group_of_workers_is_told_once(ledger: Ledger) -> None:
    take_group(ledger, 10, 11)
    take_group(ledger, 20, 21)
    assert notes(ledger) == ["a worker died; Ray started the workers anew"]
    assert ledger.num_worker_groups == 2


def test_why_the_workers_change_is_told_and_not_told_of_the_next_change(ledger: Ledger) -> None:
    take_group(ledger, 10, 11)
    ledger.take("notice", {"world_rank": 1, "reason": "SIGTERM"})
    ledger.take("restarting", {"why": None})
    take_group(ledger, 20)
    ledger.take("resizing", {"num_workers": 2})
    take_group(ledger, 30, 31)
    ledger.take("restarting", {"why": "worker 0: RuntimeError: gone"})
    take_group(ledger, 40)
    assert notes(ledger) == [
        "worker 1 has to go (SIGTERM): saving first",
        "goes on with 1 of 2 workers: worker 1 had to go",
        "the cluster has room for 2 workers: saving, then going on with them",
        "goes on with 2 of 2 workers: the cluster has room for 2",
        "the workers have ended before their time, Ray looks for room for others (worker 0: RuntimeError: gone)",
        "goes on with 1 of 2 workers: a worker died",
    ]


@pytest.mark.parametrize(
    ("size", "most", "before", "reason", "told"),
    [
        (2, 2, None, None, None),
        (1, 4, None, None, "begins with 1 of 4 workers: there is no room for more"),
        (2, 2, 2, None, "a worker died; Ray started the workers anew"),
        (1, 2, 2, None, "goes on with 1 of 2 workers: a worker died"),
        (3, 4, 2, "the cluster has room for 3", "goes on with 3 of 4 workers: the cluster has room for 3"),
        (2, 2, 2, "worker 1 had to go", "worker 1 had to go; Ray started the workers anew"),
    ],
)
def test_what_is_told_of_a_group(
    size: int, most: int, before: int | None, reason: str | None, told: str | None
) -> None:
    assert group_note(size, most, before=before, reason=reason) == told


def test_plan_checkpoint_event_phase_and_result(ledger: Ledger, records: Records) -> None:
    ledger.take("plan", PLAN)
    checkpoint = {
        "global_step": 4,
        "uri": "/c",
        "digest": "sha256:c",
        "size_bytes": 2_000_000,
        "write_s": 0.5,
    }
    ledger.take("checkpoint", checkpoint)
    ledger.take("event", {"event": "gradients", "text": "step 5: exploding", "global_step": 5})
    ledger.take("phase", {"text": "loading", "seconds": 1.5})
    ledger.take("phase", {"text": "loading", "seconds": 0.5})
    ledger.take("result", {"global_step": 9, "artifact": None})
    assert (ledger.max_steps, ledger.global_step) == (9, 9)
    assert ledger.phases_s == {"loading": 2.0}
    events = {event.kind: event for event in records.events("r-1")}
    assert events["checkpoint"].message == "step 4: 2.0 MB in 0.50 s"
    assert events["gradients"].data == {"global_step": 5}
    assert ("plan", 9, 4) in seen(ledger)
    assert {use.role for use in records.artifacts("r-1")} == {"tokens", "checkpoint"}


def test_the_first_error_is_the_one_that_counts(ledger: Ledger) -> None:
    first = TrainingError("first", why="w", fix="f")
    ledger.take("error", {"error": first})
    ledger.take("error", {"error": TrainingError("second", why="w", fix="f")})
    assert ledger.error is first


def test_an_unknown_message_is_a_fault_of_ours(ledger: Ledger) -> None:
    with pytest.raises(AssertionError, match="no entry for a message of kind gossip"):
        ledger.take("gossip", {})


def test_heartbeat_and_the_wish_to_stop(ledger: Ledger, records: Records) -> None:
    ledger.global_step = 3
    ledger.beat()
    ledger.global_step = 4
    ledger.beat()  # too soon to say it again
    assert records.get_run("r-1").global_step == 3
    assert not ledger.stop_was_asked()
    records.request_stop("r-1")
    assert not ledger.stop_was_asked(), "the database is asked now and then only"
    ledger._asked_at = 0.0
    assert ledger.stop_was_asked()


@pytest.mark.slow
def test_an_observer_may_end_the_run_and_its_reason_is_kept(ledger: Ledger) -> None:
    assert isinstance(ledger.observer, Seeing)
    assert not ledger.stop_was_asked()
    ledger.observer.stop = "others were better"
    assert ledger.stop_was_asked()
    ledger.observer.stop = None
    assert ledger.stop_was_asked(), "a wish to stop is not taken back"
    assert ledger.stopped_by == "others were better"


def test_what_ray_raises_in_the_users_words() -> None:
    import ray.train

    from raytrain.training.trainer import explain_failure

    place = Location("/disk/runs/r")
    own = TrainingError("w", why="y", fix="f")
    assert explain_failure(own, "r", place) is own
    lost = explain_failure(ray.train.ControllerError(RuntimeError("placement group timed out")), "r", place)
    assert isinstance(lost, ClusterError)
    failed = explain_failure(RuntimeError("Traceback\n  deep down\nOOM: killed\n\n"), "r", place)
    assert isinstance(failed, TrainingError)
    assert (failed.why, failed.exit_code) == ("OOM: killed", 4)
    assert explain_failure(RuntimeError(""), "r", place).why == "RuntimeError"
    # What Ray's controller meets when it writes its own list to a full disk, as pyarrow raises it.
    full = explain_failure(
        ray.train.ControllerError(OSError(errno.ENOSPC, "Error writing bytes")), "r", place
    )
    assert isinstance(full, StorageError)
    assert ("/disk/runs/r" in full.what, full.why) == (True, "No space left on device")
    assert "storage.path" in full.fix
    assert isinstance(
        explain_failure(ray.train.ControllerError(ConnectionError("gone")), "r", place), ClusterError
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_remembered_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with SignalWatch() as watch:
        assert watch.signal_name is None
        os.kill(os.getpid(), number)
        assert watch.signal_name == number.name
    assert {one: signal.getsignal(one) for one in before} == before


def test_a_handler_that_a_library_sets_meanwhile_is_taken_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with SignalWatch() as watch:
        signal.signal(signal.SIGTERM, lambda *_: pytest.fail("ended at once"))
        watch.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.signal_name == "SIGTERM"
        watch.listen()
        assert signal.getsignal(signal.SIGTERM) is before, "a second signal ends the process"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_library_turns_into_an_exit_is_remembered(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with SignalWatch() as watch:
        with watch.kept_through():
            signal.signal(number, lambda got, _: sys.exit(got))  # as Ray does at its start
            os.kill(os.getpid(), number)
            pytest.fail("the exit was not raised")
        assert watch.signal_name == number.name
    assert signal.getsignal(number) is before


def test_what_passes_a_library_without_a_signal_is_left_as_it_is() -> None:
    with SignalWatch() as watch:
        with pytest.raises(SystemExit), watch.kept_through():
            sys.exit(4)
        with watch.kept_through():
            signal.signal(signal.SIGTERM, lambda *_: pytest.fail("ended at once"))
        assert watch.signal_name is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.signal_name == "SIGTERM"


def test_a_worker_takes_the_first_sigterm_as_a_notice_and_ends_at_the_second() -> None:
    code = """
    import os, signal, threading
    from raytrain.training.signals import expect_notice, worker_is_to_end
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    expect_notice()
    assert not worker_is_to_end()
    os.kill(os.getpid(), signal.SIGTERM)
    seen = []
    asking = threading.Thread(target=lambda: seen.append(worker_is_to_end()))
    asking.start()
    asking.join()
    print(seen, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("not reached")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (7, "[True]\n"), ended.stderr


def test_a_second_signal_ends_the_process() -> None:
    code = """
    import os, signal
    from raytrain.runs.signals import SignalWatch
    with SignalWatch() as watch:
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.signal_name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGTERM)
        print("not reached")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, ""), ended.stderr

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_training import JobMaker, RecordingChannel

from raytrain.errors import IntegrityError, StorageError, TrainingError
from raytrain.models.adapter import trained_state
from raytrain.models.base import ResolvedModel
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.training.builder import RunSpecBuilder
from raytrain.training.checkpoint import Belonging, check_belonging, check_progress
from raytrain.training.checkpoint_store import (
    BackgroundWriter,
    CheckpointStore,
    Entry,
    SavedCheckpoint,
    choose_to_drop,
)
from raytrain.training.loop import run_loop
from raytrain.training.result import write_result
from raytrain.training.saving import should_save
from raytrain.training.section import TrainSection
from raytrain.training.setup import Assignment
from raytrain.training.state import TrainingState, is_better
from raytrain.training.strategies.copies import copy_to_cpu

pytestmark = pytest.mark.whole


def entries(*pairs: tuple[int, float | None]) -> list[Entry]:
    return [Entry(step, value) for step, value in pairs]


@pytest.mark.parametrize(
    ("stored", "last", "best", "mode", "dropped"),
    [
        ([], 2, 1, "min", []),
        (entries((1, None), (2, None), (3, None)), 2, 1, "min", [1]),
        (entries((1, 0.1), (2, 0.5), (3, 0.4), (4, 0.9)), 1, 1, "min", [2, 3]),
        (entries((1, 0.1), (2, 0.5), (3, 0.4), (4, 0.9)), 1, 2, "min", [2]),
        (entries((1, 0.1), (2, 0.5), (3, 0.4), (4, 0.2)), 1, 1, "max", [1, 3]),
        (entries((1, 0.1), (2, 0.5)), 1, 0, "min", [1]),
        (entries((1, float("nan")), (2, 0.5), (3, None), (4, None)), 1, 1, "min", [1, 3]),
        (entries((1, 0.3), (2, 0.3), (3, 0.3)), 1, 1, "min", [2]),  # of equals the older one
        (entries((3, None), (1, None), (2, None)), 1, 0, "min", [1, 2]),
        (entries((1, -0.5), (2, 0.0), (3, 1.0)), 1, 1, "min", [2]),
        (entries((1, 0.0), (2, -0.5), (3, -1.0)), 1, 1, "max", [2]),
    ],
)
def test_what_retention_drops(
    stored: list[Entry], last: int, best: int, mode: str, dropped: list[int]
) -> None:
    assert choose_to_drop(stored, keep_last_n=last, keep_best_k=best, mode=mode) == dropped


@pytest.mark.parametrize(
    ("step", "last_saved", "settings", "clock", "new_best", "saves"),
    [
        (10, -1, {"save_every": 10}, False, False, True),
        (11, 10, {"save_every": 10}, False, False, False),
        (10, 10, {"save_every": 10}, True, True, False),  # this very state is saved already
        (11, 10, {"save_every": 10}, True, False, True),
        (11, 10, {"save_every": 10}, False, True, True),
        (11, 10, {"save_every": 10, "keep_best_k": 0}, False, True, False),
        (10, -1, {"save_every": 0}, False, False, False),
        (10, -1, {"save_every": 0}, False, True, True),  # the clock is still on, so checkpoints are
        (10, -1, {"save_every": 0, "save_every_minutes": None}, False, True, False),
        (10, -1, {"save_every": 0}, True, False, True),
    ],
)
def test_when_a_run_saves(
    step: int, last_saved: int, settings: dict[str, Any], clock: bool, new_best: bool, saves: bool
) -> None:
    section = TrainSection(**settings)
    assert (
        should_save(
            step, last_saved_step=last_saved, section=section, clock_says_so=clock, is_new_best=new_best
        )
        == saves
    )


@pytest.mark.parametrize(
    ("value", "best", "mode", "delta", "better"),
    [
        (1.0, None, "min", 0.0, True),
        (1.0, 2.0, "min", 0.0, True),
        (2.0, 2.0, "min", 0.0, False),
        (1.95, 2.0, "min", 0.1, False),
        (3.0, 2.0, "max", 0.0, True),
        (float("nan"), None, "min", 0.0, False),
        (float("nan"), 2.0, "max", 0.0, False),
    ],
)
def test_what_is_better(value: float, best: float | None, mode: str, delta: float, better: bool) -> None:
    assert is_better(value, best, mode, delta) == better


BELONGING = Belonging("run", "sha256:model", "sha256:data", "sha256:tokens", {"lora_rank": 8})


def saved_state(*, step: int = 10, skipped: int = 0, learning_rate: float = 1e-3) -> dict[str, Any]:
    return {
        "training": {"global_step": step, "num_skipped_steps": skipped},
        "learning_rate": learning_rate,
    }


@pytest.mark.parametrize(
    ("optimizer_steps", "skipped", "rate", "complaint"),
    [
        (10, 0, 1e-3, None),
        (7, 3, 1e-3, None),
        (9, 0, 1e-3, "contradicts itself"),
        (None, 0, 1e-3, "contradicts itself"),
        (10, 0, 1.0001e-3, "another learning-rate schedule"),
        (10, 0, 1e-3 * (1 + 1e-12), None),  # another machine's last digit
    ],
)
def test_step_optimizer_and_learning_rate_tell_one_story(
    optimizer_steps: int | None, skipped: int, rate: float, complaint: str | None
) -> None:
    state = saved_state(skipped=skipped)
    if complaint is None:
        check_progress(state, learning_rate_now=rate, optimizer_steps=optimizer_steps, place="p")
        return
    with pytest.raises(IntegrityError, match=complaint):
        check_progress(state, learning_rate_now=rate, optimizer_steps=optimizer_steps, place="p")


def test_a_state_before_any_step_has_no_optimizer_entries() -> None:
    check_progress(saved_state(step=0), learning_rate_now=1e-3, optimizer_steps=None, place="p")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"run_id": "other"}, "another run id"),
        ({"base_model_digest": "sha256:x"}, "another base model digest"),
        ({"dataset_digest": "sha256:x"}, "another dataset digest"),
        ({"adapter": {"lora_rank": 4}}, "another adapter"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change: dict[str, Any], named: str) -> None:
    from dataclasses import replace

    check_belonging(BELONGING, BELONGING, "here")
    with pytest.raises(IntegrityError, match=named) as caught:
        check_belonging(BELONGING, replace(BELONGING, **change), "here")
    (was, now) = (next(iter(change)), next(iter(change.values())))
    assert was in caught.value.why
    assert str(now) in caught.value.why


def test_copies_keep_ties_and_nothing_else_in_common() -> None:
    tied = torch.arange(4.0)
    copied = copy_to_cpu({"a": tied, "b": tied, "c": tied[:2], "d": torch.zeros(0), "e": torch.zeros(0)})
    assert copied["a"] is copied["b"]
    tied.add_(1)
    assert copied["a"].tolist() == [0, 1, 2, 3]
    assert copied["c"].tolist() == [0, 1]


def saved(step: int = 1) -> SavedCheckpoint:
    return SavedCheckpoint(step, Location("/x"), "sha256:d", 1, 0.0)


class TestBackgroundWriter:
    def test_writes_behind_one_at_a_time(self) -> None:
        writer, gate, started = BackgroundWriter(), threading.Event(), threading.Event()

        def slow() -> SavedCheckpoint:
            started.set()
            assert gate.wait(10)
            return saved(1)

        writer.submit(slow)
        assert started.wait(10)
        assert writer.finished() == []
        gate.set()
        writer.submit(lambda: saved(2))
        writer.wait()
        assert [one.global_step for one in writer.finished()] == [1, 2]
        assert writer.finished() == []

    def test_an_unforeseen_error_is_raised_where_the_results_are_taken(self) -> None:
        writer = BackgroundWriter()

        def fail() -> SavedCheckpoint:
            raise ValueError("a fault of ours")

        writer.submit(fail)
        writer.wait()
        with pytest.raises(ValueError, match="a fault of ours"):
            writer.finished()

    def test_waiting_for_nothing_returns(self) -> None:
        BackgroundWriter().wait()


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_spares_the_one_before(
    make_job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = RecordingChannel()
    job = make_job(channel=channel, save_every=2)
    write = CheckpointStore.write

    def full_from_step_4(self: CheckpointStore, snapshot: Any, *rest: Any) -> SavedCheckpoint:
        if snapshot.global_step < 4:
            return write(self, snapshot, *rest)
        error = StorageError("cannot write x", why="No space left on device", fix="free space there")
        return SavedCheckpoint(snapshot.global_step, Location("/x"), None, 0, 0.0, error)

    monkeypatch.setattr(CheckpointStore, "write", full_from_step_4)
    with pytest.raises(StorageError, match="cannot write x"):
        run_loop(job)
    assert any("checkpoint of step 4 failed" in one["text"] for one in channel.of("note"))
    monkeypatch.setattr(CheckpointStore, "write", write)
    again = make_job()
    assert again.state.global_step == 2
    assert run_loop(again) == "finished"


def test_without_a_reason_from_rank_0_the_other_ranks_still_end(make_job: JobMaker) -> None:
    from raytrain.training.loop import settle_saves

    with pytest.raises(TrainingError, match="could not be written"):
        settle_saves(make_job(), [], num_committed=0, num_failed=1)


def test_an_orphan_cannot_write_into_a_run_that_others_took_over(make_job: JobMaker) -> None:
    """Workers live on for seconds after their driver was killed, and the same command may be there by then."""
    orphan = make_job()
    heir = make_job()
    with pytest.raises(TrainingError, match="written by another process now"):
        run_loop(orphan)
    assert heir.saver.store.steps() == []
    assert run_loop(heir) == "finished"
    assert heir.saver.store.steps()[-1] == 6


def test_an_orphan_cannot_write_the_result_of_a_run_that_others_took_over(
    make_job: JobMaker, base: ResolvedModel, tmp_path: Path
) -> None:
    spec = RunSpecBuilder("r").model(base.reference).data("rows.jsonl").storage(str(tmp_path)).build()
    assignment = Assignment("r-1", spec, Location(str(tmp_path / "dataset")), base)
    result = tmp_path / "runs" / "r-1"
    orphan = make_job()
    run_loop(orphan)
    heir = make_job()
    with pytest.raises(TrainingError, match="written by another process now"):
        write_result(orphan, assignment, orphan.saver.store, trained_state(orphan.model))
    assert list(result.iterdir()) == [], "neither a result nor the half of one"
    written = write_result(heir, assignment, heir.saver.store, trained_state(heir.model))
    assert (written.kind, open_artifact(written.location).digest) == ("adapter", written.digest)


def test_a_mirror_that_is_full_costs_a_note_and_nothing_else(make_job: JobMaker, tmp_path: Path) -> None:
    blocked = tmp_path / "drive"
    blocked.write_text("a file where a folder is needed")
    channel = RecordingChannel()
    assert run_loop(make_job(mirror=blocked, channel=channel)) == "finished"
    assert any("the mirror has no copy of step 2" in one["text"] for one in channel.of("note"))


def test_other_names_in_the_folder_are_left_alone(make_job: JobMaker, tmp_path: Path) -> None:
    job = make_job(channel=RecordingChannel(stop_after=2))
    run_loop(job)
    folder = tmp_path / "run" / "checkpoints"
    (folder / "notes").mkdir()
    (folder / "step-abc").mkdir()
    (folder / "step-00000099").mkdir()  # empty: what a copy that was broken off leaves
    store = job.saver.store
    assert store.steps() == [2, 99]
    skipped: list[str] = []
    whole = store.newest_whole(skipped.append)
    assert whole is not None
    assert whole.location.name == "step-00000002"
    assert len(skipped) == 1
    assert "step-00000099" in skipped[0]


def test_the_best_checkpoint_is_found_by_its_own_manifest(make_job: JobMaker) -> None:
    job = make_job(max_steps=8, eval_every=2, save_every=2, keep_last_n=8, keep_best_k=8)
    run_loop(job)
    values = {
        step: open_artifact(job.saver.store.place(step)).manifest.provenance["monitored"]["eval/loss"]
        for step in job.saver.store.steps()
    }
    best = job.saver.store.best("min")
    worst = job.saver.store.best("max")
    assert best is not None
    assert worst is not None
    assert best.location.name == f"step-{min(values, key=values.__getitem__):08d}"
    assert worst.location.name == f"step-{max(values, key=values.__getitem__):08d}"


def test_training_state_survives_json() -> None:
    import json

    state = TrainingState(global_step=3, best_value=0.5, last_eval={"eval/loss": 0.5})
    assert TrainingState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_clock_saves_after_minutes(make_job: JobMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(save_every=0, save_every_minutes=1e-9)
    run_loop(job)
    assert job.saver.num_saved == 6

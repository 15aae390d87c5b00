"""`check resume`: the first difference is found and named, and a resume that forgets something does not pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_checks import tiny_spec
from conftest_training import JobMaker, RecordingChannel

from raytrain.training import checkpoint, checkpoint_store, loop, setup
from raytrain.training.checks.holding import FOLDER_VARIABLE, SEEN_FILE, Hold, Place, held_ranks, hold_at
from raytrain.training.checks.resume import (
    NUM_STEPS,
    SAVE_EVERY,
    Leg,
    judge_leg,
    judge_runs,
    make_smaller,
    plan_legs,
)
from raytrain.training.checks.trace import (
    StepTrace,
    Trace,
    first_difference,
    read_checkpoints,
    read_steps,
)
from raytrain.training.job import Job
from raytrain.training.loop import run_loop

pytestmark = pytest.mark.slow

STEP = StepTrace((("a", "b"), ("c",)), 2.5, ({"torch": "1", "python": "2"}, {"torch": "3", "python": "4"}))


@pytest.mark.parametrize(
    ("changed", "kind", "where", "what"),
    [
        (replace(STEP, rows=(("a", "x"), ("c",))), "row", "row b", "rank 0 saw row x in its place"),
        (replace(STEP, rows=(("a", "b"), ())), "row", "row c", "rank 1 saw row None in its place"),
        (replace(STEP, rows=(("a", "b", "d"), ("c",))), "row", "row None", "rank 0 saw row d"),
        (replace(STEP, loss=2.5000001), "loss", "train/loss", "2.5 straight, 2.5000001 resumed"),
        (
            replace(STEP, random=(STEP.random[0], {"torch": "9", "python": "4"})),
            "RNG", "the torch generator of rank 1", "stands somewhere else",
        ),
        # Other rows give another loss: the cause is named, not what follows from it.
        (replace(STEP, rows=(("x", "b"), ("c",)), loss=3.0), "row", "row a", "rank 0 saw row x"),
        (None, "step", "the whole step", "the resumed run has not made it"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(changed: StepTrace | None, kind: str, where: str, what: str) -> None:
    straight = Trace({1: STEP, 2: STEP, 3: STEP})
    steps = {1: STEP, 2: changed, 3: replace(STEP, loss=9.0)}
    resumed = Trace({step: one for step, one in steps.items() if one is not None})
    difference = first_difference(straight, resumed)
    assert difference is not None
    assert (difference.kind, difference.step, difference.where) == (kind, 2, where)
    assert what in difference.what


def test_equal_runs_have_no_difference() -> None:
    nan = replace(STEP, loss=float("nan"))
    assert first_difference(Trace({1: STEP, 2: nan}), Trace({1: STEP, 2: nan})) is None


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 4, 5, 7, 13])
def test_the_plan_of_kills(steps_per_epoch: int) -> None:
    legs = plan_legs(steps_per_epoch)
    assert [leg.place.moment for leg in legs] == ["mid-epoch", "mid-accumulation", "mid-save"]
    for leg in legs:
        assert leg.resumes_at % SAVE_EVERY == 0
        assert 0 < leg.resumes_at < leg.place.step < NUM_STEPS
    assert steps_per_epoch == 1 or legs[0].place.step % steps_per_epoch != 0
    assert legs[2].place.step % SAVE_EVERY == 0, "a checkpoint is written there"


@pytest.mark.parametrize(
    ("resumed_at", "status", "what"),
    [
        (3, "passed", "went on from the checkpoint of step 3"),
        (None, "failed", "began anew, the checkpoint of step 3 stood"),
        (0, "failed", "went on from step 0"),
    ],
)
def test_a_leg_that_does_not_resume_fails(resumed_at: int | None, status: str, what: str) -> None:
    finding = judge_leg(Leg(Place("mid-epoch", 5), 3), resumed_at)
    assert finding.status == status
    assert what in finding.what


def test_the_small_recipe_says_what_it_changed(
    tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    spec = tiny_spec(
        tiny_llama, rows, tmp_path, adapter={"lora_dropout": 0.0}, scaling={"num_workers": 64, "use_gpu": True},
        train={"eval_every": 2, "early_stopping_patience": 3, "num_epochs": 9, "max_steps": None},
    )  # fmt: skip
    smaller = make_smaller(spec)
    small = smaller.spec
    assert small.train.max_steps == NUM_STEPS
    assert small.scaling.max_workers < 64
    assert not small.scaling.use_gpu or torch.cuda.is_available()
    assert small.adapter.lora_dropout == 0.1
    assert small.train.hooks == ["raytrain.training.checks.holding:Hold"]
    (note,) = smaller.note()
    for change in ("train.max_steps=12 (the recipe: null)", "adapter.lora_dropout=0.1", "the recipe: 64"):
        assert change in note
    assert small.data.max_rows == 64


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Hold]:
    """Makes the hook for a folder; what it wraps is put back after the test."""
    originals = [
        (loop, "micro_batch"),
        (loop, "take_step"),
        (checkpoint, "save_file"),
        (checkpoint_store, "write_snapshot"),
    ]
    before = [(module, name, getattr(module, name)) for module, name in originals]

    def make(folder: str) -> Hold:
        for module, name, function in before:
            monkeypatch.setattr(module, name, function)
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        monkeypatch.setenv(FOLDER_VARIABLE, str(place))
        return Hold()

    return make


def trace_of(tmp_path: Path, run: str) -> Trace:
    return Trace(
        read_steps(tmp_path / f"{run}-notes" / SEEN_FILE), read_checkpoints(tmp_path / run / "checkpoints")
    )


def make_runs(
    make_job: JobMaker, noted: Callable[[str], Hold], tmp_path: Path, spoil: Callable[[Job], None]
) -> tuple[Trace, Trace]:
    """Straight to 6, and 6 in two legs, the second spoilt."""
    options: dict[str, Any] = {"keep_last_n": 10}
    run_loop(make_job("straight", hooks={"hold": noted("straight-notes")}, **options))
    first = make_job(
        "legs", hooks={"hold": noted("legs-notes")}, channel=RecordingChannel(stop_after=3), **options
    )
    assert run_loop(first) == "stop_requested"
    second = make_job("legs", hooks={"hold": noted("legs-notes")}, **options)
    assert second.state.global_step == 3
    spoil(second)
    run_loop(second)
    return trace_of(tmp_path, "straight"), trace_of(tmp_path, "legs")


def nothing(job: Job) -> None:
    """A resume as it should be."""


def test_a_true_resume_passes(make_job: JobMaker, noted: Callable[[str], Hold], tmp_path: Path) -> None:
    straight, legs = make_runs(make_job, noted, tmp_path, nothing)
    assert sorted(straight.steps) == [1, 2, 3, 4, 5, 6]
    assert sorted(straight.checkpoints.keys() & legs.checkpoints.keys()) == [2, 4, 6]
    finding = judge_runs(straight, legs)
    assert finding.status == "passed", finding.what


def test_a_resume_that_forgets_the_generators_is_found(
    make_job: JobMaker, noted: Callable[[str], Hold], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout then draws other numbers from the first resumed step on."""
    monkeypatch.setattr(setup, "restore_random_state", lambda state: None)
    straight, legs = make_runs(make_job, noted, tmp_path, nothing)
    finding = judge_runs(straight, legs)
    assert finding.status == "failed"
    assert finding.figures["kind"] == "RNG"
    assert finding.figures["step"] == 4, "the first step after the resume"
    assert finding.figures["where"] == "the torch generator of rank 0"


def test_a_forgotten_moment_is_found_as_a_tensor(
    make_job: JobMaker, noted: Callable[[str], Hold], tmp_path: Path
) -> None:
    def forget(job: Job) -> None:
        for state in job.optimizer.state.values():
            state["exp_avg"].zero_()

    straight, legs = make_runs(make_job, noted, tmp_path, forget)
    finding = judge_runs(straight, legs)
    assert finding.status == "failed"
    assert (finding.figures["kind"], finding.figures["step"]) == ("tensor", 4)
    assert "lora_A" in str(finding.figures["where"])


def test_another_row_order_is_found_as_a_row(
    make_job: JobMaker, noted: Callable[[str], Hold], tmp_path: Path
) -> None:
    def reorder(job: Job) -> None:
        job.planner.seed += 1
        job.planner._order = None

    straight, legs = make_runs(make_job, noted, tmp_path, reorder)
    finding = judge_runs(straight, legs)
    assert (finding.figures["kind"], finding.figures["step"]) == ("row", 4)
    assert str(finding.figures["where"]).startswith("row row"), "the row's own id"


def test_the_hook_holds_where_it_is_told(
    make_job: JobMaker, noted: Callable[[str], Hold], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place is reached and marked; letting go is what the deadline stands in for here."""
    monkeypatch.setattr("raytrain.training.checks.holding._LONGEST_HOLD_S", 0.2)
    places = [Place("mid-epoch", 1), Place("mid-accumulation", 2), Place("mid-save", 2)]
    for place in places:
        hook = noted(f"notes-{place.moment}")
        folder = tmp_path / f"notes-{place.moment}"
        hold_at(folder, place)
        run_loop(make_job(f"run-{place.moment}", hooks={"hold": hook}, max_steps=2, micro_batch_size=2))
        assert held_ranks(folder, place) == 1, place
        assert sorted(one.name for one in folder.glob("held-*")) == [
            f"held-{place.moment}-{place.step}-rank0"
        ]


def test_a_step_that_is_made_again_counts_as_it_was_made_last(tmp_path: Path) -> None:
    line = {"step": 1, "rank": 0, "rows": ["a"], "loss": 1.0, "random": {}}
    again = {**line, "rows": ["b"], "loss": 2.0}
    other = {**line, "rank": 1, "rows": ["c"]}
    file = tmp_path / SEEN_FILE
    file.write_text("".join(json.dumps(one) + "\n" for one in (line, other, again)))
    assert read_steps(file)[1] == StepTrace((("b",), ("c",)), 2.0, ({}, {}))

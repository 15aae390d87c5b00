"""`raytrain run` for real: killed in each of its steps, gone on with, and answered from what is there."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from bench import Bench, wait_until, write_recipe
from suites import write_suite

ROWS = [{"question": f"What is the sum of {i} and {i * i}?", "answer": str(i + i * i)} for i in range(64)]


@pytest.fixture
def recipe(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> Path:
    suite = write_suite(tmp_path, "sums", ROWS, generation={"max_new_tokens": 80})
    return write_recipe(
        tmp_path / "whole.yaml",
        model=tiny_llama,
        rows=rows_file,
        train={"max_steps": 4, "eval_every": 4, "save_every": 4, "warmup_steps": 0, "hooks": []},
        scaling={"num_workers": 1},
        search={
            "space": {"train.learning_rate": {"type": "choice", "choices": [1e-2, 1e-3]}},
            "sampler": "grid",
            "num_trials": 2,
            "max_concurrent": 1,
            "scheduler": "none",
            "probe_steps": 0,
        },
        pipeline={"check": False, "suites": [suite.name]},
    )


def steps_of(told: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(step["name"], step["was_known"]) for step in told["steps"]]


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_killed_in_a_late_step_it_goes_on_and_makes_nothing_twice(joined: Bench, recipe: Path) -> None:
    assert joined.address is not None
    words = ("run", recipe, "pipeline.batch_size=2", "--json", "--address", joined.address)
    running = joined.start(*words)
    wait_until(
        lambda: (
            len(list(joined.home.glob("runs/*/records/sums/part-*.parquet"))) >= 2
            or running.process.poll() is not None
        ),
        600,
        lambda: "an answer of the baseline: " + running.files[1].read_text()[-3000:],
    )
    running.process.kill()
    assert running.ended().code == -9

    done = joined.run(*words, timeout_s=600)
    assert done.code in (0, 5), done.told()
    assert steps_of(done.object) == [
        ("prepare", True), ("tune", True), ("train", True),
        ("baseline", False), ("evaluate", False), ("compare", False),
    ]  # fmt: skip
    trained = next(step for step in done.object["steps"] if step["name"] == "train")
    assert "-tune-" in trained["told"], "the search has trained it already"

    again = joined.run(*words, timeout_s=300)
    assert again.code == done.code
    assert [known for _, known in steps_of(again.object)] == [True] * 6
    assert [step["digest"] for step in again.object["steps"]] == [
        step["digest"] for step in done.object["steps"]
    ]
    shown = joined.show(done.object["run_id"])
    assert (shown["run"]["kind"], shown["run"]["state"]) == ("pipeline", "succeeded")
    assert {use["role"] for use in shown["artifacts"]} == {step["name"] for step in done.object["steps"]}


def killed_in(bench: Bench, step: str, words: tuple[str | Path, ...]) -> None:
    # Beside the hooks: Ray's workers look first where the driver's script lies.
    script = shutil.copy(Path(__file__).with_name("killed_in_a_step.py"), bench.hooks)
    bench.before = [sys.executable, str(script), step]
    outcome = bench.start(*words).ended(600)
    assert outcome.code == -9, f"not killed in {step}: {outcome.told()}"
    bench.before[-1] = "none"


def let_go_when_its_workers_have_ended(bench: Bench) -> None:
    """Not before: a worker that outlives its driver makes steps, and saves them, that nobody hears of."""
    (run_id,) = [one.name for one in bench.home.glob("runs/whole-????????")]
    left = list(bench.worker_pids(run_id).values())
    wait_until(lambda: not any(map(psutil.pid_exists, left)), 60, lambda: f"the end of {left}")
    bench.hold_at(None)


@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_killed_in_the_middle_of_each_step_it_goes_on_and_says_what_is_known(
    joined: Bench, recipe: Path
) -> None:
    assert joined.address is not None
    own = ("pipeline.check=true", "train.save_every=2", "train.eval_every=2", "train.hooks=[watching:Watch]")
    joined.hold_at(3)
    whole = recipe.read_text()
    recipe.write_text(
        yaml.safe_dump({key: value for key, value in yaml.safe_load(whole).items() if key != "search"})
    )
    words = ("run", recipe, *own, "--address", joined.address)
    for step in ("prepare", "check", "train", "baseline", "evaluate", "compare"):
        killed_in(joined, step, (*words, "--json"))
        if step == "train":
            let_go_when_its_workers_have_ended(joined)
    done = joined.run(*words, "--json", timeout_s=600)
    assert done.code in (0, 5), done.told()
    assert steps_of(done.object) == [
        ("prepare", True), ("check", True), ("train", True), ("baseline", True), ("evaluate", True),
        ("compare", False),
    ], "of a kill in a step the steps before it know nothing"  # fmt: skip
    (trained,) = joined.run("runs", "list", "--kind", "train", "--json").object["runs"]
    assert joined.steps_told(trained["id"]) == [1, 2, 3, 4], "no step lost or told twice"
    assert joined.resumed_at(trained["id"]) == [2]
    assert len(joined.run("runs", "list", "--kind", "evaluate", "--json").object["runs"]) == 2

    recipe.write_text(whole)  # what the search has found is trained then
    killed_in(joined, "tune", (*words, "--json"))
    best = joined.run(*words, "--json", timeout_s=600)
    assert best.code in (0, 5), best.told()
    known = dict(steps_of(best.object))
    assert (known["prepare"], known["check"], known["tune"], known["train"]) == (True, True, False, True)
    (study,) = joined.run("runs", "list", "--kind", "tune", "--json").object["runs"]
    runs = joined.run("runs", "list", "--kind", "train", "--json").object["runs"]
    trials = [one["id"] for one in runs if one["id"].startswith(study["id"])]
    assert sorted(trials) == [f"{study['id']}-0000", f"{study['id']}-0001"]
    for run_id in trials:
        assert joined.steps_told(run_id) == [1, 2, 3, 4]

    again = joined.run(*words, timeout_s=300)
    assert again.code == best.code, again.told()
    lines = [line for line in again.stderr.splitlines() if re.match(r"\d\. | {3}known: ", line)]
    headings, told = lines[::2], lines[1::2]
    assert [int(one.split(".")[0]) for one in headings] == list(range(1, 8)), again.told()
    assert len(told) == 7 and all(one.startswith("   known: ") for one in told)

"""`raytrain run` for real: killed in a late step, gone on with, and answered from what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
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

"""A search whose driver is killed on a cluster that lives on: Ray ends the trial's processes when it hears of it."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from bench import Bench, wait_until, write_recipe

from raytrain.tuning.spec import load_tune_recipe
from raytrain.tuning.study import StudyMemory

pytestmark = pytest.mark.thorough


@pytest.mark.timeout(600)
def test_the_same_command_at_once_on_the_same_cluster_counts_nothing_twice(
    joined: Bench, tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(
        tmp_path / "search.yaml", model=tiny_llama, rows=rows_file,
        train={"max_steps": 8, "eval_every": 4, "save_every": 2, "warmup_steps": 0},
        scaling={"num_workers": 1},
        search={
            "space": {"train.learning_rate": {"type": "choice", "choices": [1e-2, 1e-3]}}, "sampler": "grid",
            "max_concurrent": 1, "scheduler": "none", "probe_steps": 0,
        },
    )  # fmt: skip
    assert joined.address is not None
    command = ("tune", recipe, "--json", "--address", joined.address)
    search = load_tune_recipe(recipe, []).run_id
    first = f"{search}-0000"

    began = time.monotonic()
    joined.hold_at(5)
    running = joined.start(*command)
    joined.wait_for_step(running, first, 5, timeout_s=240)
    joined.wait_until_held(first, world_size=1)
    joined.wait_for_checkpoint(first, 4)
    left = [*joined.worker_pids(first).values(), joined.show(first)["run"]["owner"]["pid"]]
    joined.kill_now(running.pid)
    assert running.ended().code == -9
    again = joined.start(*command)  # while the cluster may not know of it yet
    wait_until(lambda: not any(map(psutil.pid_exists, left)), 60, lambda: f"the end of {left}")
    joined.hold_at(None)
    outcome = again.ended(300)
    assert outcome.code == 0, outcome.told()

    trials = outcome.object["trials"]
    assert [(one["number"], one["state"]) for one in trials] == [(0, "complete"), (1, "complete")]
    assert joined.resumed_at(first) == [4]
    for one in trials:
        assert joined.steps_told(one["run_id"]) == list(range(1, 9)), "no step lost or told twice"
    runs = joined.run("runs", "list", "--kind", "train", "--json").object["runs"]
    assert sorted(run["id"] for run in runs) == [one["run_id"] for one in trials]
    owners = [one for one in joined.events(first, "worker") if one["data"]["world_rank"] == 0]
    assert len({one["data"]["pid"] for one in owners}) == 2, "the trial was made by one process after another"
    monkeypatch.setenv("RAYTRAIN_HOME", str(joined.home))
    kept = StudyMemory(load_tune_recipe(recipe, []), search)
    assert [one.state for one in kept.trials()] == ["complete", "complete"]
    assert kept.trials()[0].spent_s < time.monotonic() - began, "its time once"

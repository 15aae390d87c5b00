"""Searches for real: trials that are whole training runs, killed with their driver and alone, and a population."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from bench import Bench, wait_until, write_recipe
from conftest import Cluster
from inside import Inside

from raytrain.training.spec import load_spec
from raytrain.tuning.spec import load_tune_recipe
from raytrain.tuning.study import StudyMemory

LEARNING_RATE = {"type": "float", "low": 1e-4, "high": 5e-2, "log": True}


@pytest.fixture
def searched(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> Path:
    """Trials of 12 steps with one worker, compared at steps 4 and 8."""
    return write_recipe(
        tmp_path / "search.yaml",
        model=tiny_llama,
        rows=rows_file,
        train={"max_steps": 12, "eval_every": 4, "save_every": 4, "warmup_steps": 0},
        scaling={"num_workers": 1},
        search={
            "space": {
                "train.learning_rate": LEARNING_RATE,
                "adapter.lora_rank": {"type": "choice", "choices": [2, 4]},
            },
            "num_trials": 3,
            "max_concurrent": 1,
            "scheduler": "none",
            "probe_steps": 0,
        },
    )


def trials_of(told: dict[str, Any]) -> list[tuple[int, str]]:
    return [(one["number"], one["state"]) for one in told["trials"]]


@pytest.mark.timeout(1200)
def test_a_search_goes_on_after_a_kill_of_its_driver_and_of_a_trial(
    local: Bench, searched: Path, rows_file: Path
) -> None:
    shutil.copy(rows_file, local.folder / "beside.jsonl")
    named_from_here = "data.sources=beside.jsonl"
    search = load_tune_recipe(searched, [named_from_here]).run_id
    first, second = f"{search}-0000", f"{search}-0001"
    command = ("tune", searched, named_from_here, "--json")

    local.hold_at(6)
    running = local.start(*command)
    local.wait_for_step(running, first, 6, timeout_s=300)
    local.wait_until_held(first, world_size=1)
    local.wait_for_checkpoint(first, 4)
    left = [*local.worker_pids(first).values(), local.show(first)["run"]["owner"]["pid"]]
    local.kill_now(running.pid)
    assert running.ended().code == -9
    wait_until(lambda: not any(map(psutil.pid_exists, left)), 60, lambda: f"the end of {left}")
    assert local.show(search)["run"]["owner_gone"]

    local.hold_at(7)  # the first has passed 6 when the hold is moved back there, and the second has not begun
    running = local.start(*command)
    local.wait_for_step(running, first, 7, timeout_s=240)
    local.wait_until_held(first, world_size=1)
    local.hold_at(6)
    local.wait_for_step(running, second, 6, timeout_s=240)
    local.wait_until_held(second, world_size=1)
    local.wait_for_checkpoint(second, 4)
    local.kill_now(local.show(second)["run"]["owner"]["pid"])
    local.hold_at(None)
    outcome = running.ended(600)
    assert outcome.code == 0, outcome.told()

    told = outcome.object
    assert trials_of(told) == [(0, "complete"), (1, "complete"), (2, "complete")]
    assert told["ended_by"] == "all trials are made"
    assert local.resumed_at(first) == [4], "the driver's kill"
    assert local.resumed_at(second) == [4], "the trial's own"
    for run_id in (first, second):
        assert local.steps_told(run_id) == list(range(1, 13)), "no step lost or told twice"
    assert told["trials"][0]["values"]["train.learning_rate"] == 1e-2, (
        "the recipe's own values are tried first"
    )
    losses = {one["number"]: one["objectives"][0] for one in told["trials"]}
    assert told["best"][0]["number"] == min(losses, key=lambda number: losses[number])

    # What it leaves: a recipe that trains to the same weights, and a page.
    best = Path(told["files"]["best"])
    page = Path(told["files"]["page"]).read_text()
    assert "data:image/png;base64," in page
    assert f"{losses[told['best'][0]['number']]:.6g}" in page
    trained = local.train(best)
    assert trained.code == 0, trained.told()
    assert trained.object["metrics"]["eval/loss"] == pytest.approx(
        losses[told["best"][0]["number"]], abs=1e-6
    )

    again = local.run(*command, timeout_s=300)
    assert (again.code, again.object["digest"]) == (0, told["digest"]), (
        "the same command again makes nothing anew"
    )


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_population_hands_its_weights_on(inside: Inside, tiny_llama: Path, rows_file: Path) -> None:
    recipe = write_recipe(
        inside.folder / "population.yaml",
        model=tiny_llama,
        rows=rows_file,
        train={
            "max_steps": 8, "eval_every": 4, "save_every": 4, "warmup_steps": 0, "schedule": "constant", "hooks": [],
        },
        scaling={"num_workers": 1},
        search={
            "space": {"train.learning_rate": LEARNING_RATE},
            "scheduler": "pbt",
            "population": {"size": 2, "interval_steps": 4, "replaced_fraction": 0.5},
            "probe_steps": 0,
        },
    )  # fmt: skip
    assert inside.address is not None
    outcome = inside.run("tune", recipe, "--json", "--address", inside.address)
    assert outcome.code == 0, outcome.told()
    trials = outcome.object["trials"]
    assert trials_of(outcome.object) == [(number, "complete") for number in range(4)]
    better = min((0, 1), key=lambda number: trials[number]["objectives"][0])
    replaced = next(one for one in trials[2:] if one["origin"])
    assert replaced["origin"] == f"the weights of trial {better}"
    for one in trials[2:]:
        assert inside.resumed_at(one["run_id"]) == [4]
        assert inside.steps_told(one["run_id"]) == [5, 6, 7, 8]
    factor = replaced["values"]["train.learning_rate"] / trials[better]["values"]["train.learning_rate"]
    assert (
        factor == pytest.approx(0.8)
        or factor == pytest.approx(1.25)
        or replaced["values"]["train.learning_rate"] in (LEARNING_RATE["low"], LEARNING_RATE["high"])
    )


@pytest.mark.timeout(400)
def test_an_objective_that_nobody_reports_ends_the_search(
    inside: Inside, cluster: Cluster, searched: Path
) -> None:
    assert inside.address is not None
    overrides = ["search.objectives=[{metric: eval/los}]", "train.max_steps=2", "train.hooks=[]"]
    outcome = inside.run("tune", searched, *overrides, "--json", "--address", inside.address)
    assert outcome.code == 2
    assert outcome.error["what"] == "search.objectives: no trial reports `eval/los`"
    assert "eval/loss" in outcome.error["why"]
    assert outcome.error["fix"] == "did you mean `eval/loss`?"
    search = load_tune_recipe(searched, overrides).run_id
    notes = [one["message"] for one in inside.events(search, "note")]
    assert f"Ray's dashboard: {cluster.dashboard}" in notes


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_search_whose_every_trial_fails_ends_with_their_reason(
    joined: Bench, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (joined.hooks / "failing.py").write_text(
        "from raytrain.training.hooks import Hook\n\n\nclass Failing(Hook):\n"
        "    def on_step_end(self, global_step, metrics):\n"
        "        if global_step == 2:\n            raise RuntimeError('the sensor is unplugged')\n"
    )
    overrides = ["train.hooks=[failing:Failing]", "scaling.max_failures=0", "search.max_failed_trials=2"]
    assert joined.address is not None
    outcome = joined.run("tune", searched, *overrides, "--json", "--address", joined.address, timeout_s=300)
    assert (outcome.code, outcome.error["kind"]) == (4, "training"), outcome.told()
    assert outcome.error["what"] == "2 trials in a row failed, the last of them trial 1"
    assert "the sensor is unplugged" in outcome.error["why"]

    recipe = load_tune_recipe(searched, overrides)
    search = joined.show(recipe.run_id)["run"]
    assert (search["state"], search["error"]) == ("failed", outcome.error)
    monkeypatch.setenv("RAYTRAIN_HOME", str(joined.home))
    trials = StudyMemory(recipe, recipe.run_id).trials()
    assert [one.state for one in trials] == ["failed", "failed"], "of the three that it may make"
    runs = joined.run("runs", "list", "--kind", "train", "--json").object["runs"]
    assert sorted(run["id"] for run in runs) == [f"{recipe.run_id}-{one.number:04d}" for one in trials]
    for run, one in zip(sorted(runs, key=lambda run: str(run["id"])), trials, strict=True):
        assert (run["state"], run["global_step"]) == ("failed", 2)
        assert "the sensor is unplugged" in run["error"]["why"]
        assert "the sensor is unplugged" in (one.reason or "")


@pytest.mark.thorough
@pytest.mark.timeout(1500)
def test_a_budget_ends_a_search_for_real_and_a_larger_one_goes_on(inside: Inside, searched: Path) -> None:
    """With a probe and its forecast, under HyperBand."""
    assert inside.address is not None

    seconds: list[float] = []

    def search(num_trials: int, hours: float) -> dict[str, Any]:
        outcome = inside.run(
            "tune", searched, "search.scheduler=hyperband", "search.probe_steps=2", "train.hooks=[]",
            f"search.num_trials={num_trials}", f"search.budget.hours={hours}", "--json", "--address", inside.address,
        )  # fmt: skip
        assert outcome.code == 0, outcome.told()
        seconds.append(outcome.seconds)
        found: dict[str, Any] = outcome.object
        return found

    first = search(2, 1.0)
    assert (first["state"], first["ended_by"]) == ("succeeded", "all trials are made")
    trial_s = max(one["spent_s"] for one in first["trials"])
    assert 0 < first["forecast"]["trial_s"] < 20 * trial_s and first["forecast"]["num_trials"] == 2

    ended = search(50, (seconds[0] + 0.5 * trial_s) / 3600)
    assert ended["state"] == "succeeded" and ended["ended_by"].startswith("search.budget.hours: "), ended[
        "ended_by"
    ]
    assert ended["best"] and Path(ended["files"]["best"]).is_file(), "the best so far"
    made = [number for number, state in trials_of(ended) if state in ("complete", "pruned")]
    assert 2 <= len(made) < 10

    more = search(len(made) + 1, 2.0)
    assert more["ended_by"] == "all trials are made"
    states = dict(trials_of(more))
    assert sum(state in ("complete", "pruned") for state in states.values()) == len(made) + 1
    assert {number: states[number] for number in made} == {
        number: dict(trials_of(ended))[number] for number in made
    }


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_asha_ends_a_trial_that_learns_nothing_and_the_next_is_made(inside: Inside, searched: Path) -> None:
    assert inside.address is not None
    space = "search.space={train.learning_rate: {type: choice, choices: [1e-2, 1e-8, 5e-3]}}"
    outcome = inside.run(
        "tune", searched, space, "search.sampler=grid", "search.scheduler=auto", "search.min_steps=20",
        "train.max_steps=100", "train.eval_every=20", "train.save_every=50", "train.hooks=[]",
        "--json", "--address", inside.address,
    )  # fmt: skip
    assert outcome.code == 0, outcome.told()
    first, second, third = outcome.object["trials"]
    assert (first["state"], second["state"]) == ("complete", "pruned")
    assert second["values"] == {"train.learning_rate": 1e-8}
    assert "at step 20: others were better by then" in second["reason"], "its first comparison"
    ended = inside.show(second["run_id"])["run"]
    assert ended["state"] == "cancelled"
    assert 20 <= ended["global_step"] < 100, "as soon as its workers hear of it"
    assert Path(inside.show(first["run_id"])["run"]["storage_uri"]).is_dir()
    assert not Path(ended["storage_uri"]).exists(), "nobody goes on from it"
    assert third["state"] in ("complete", "pruned")


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_trials_of_two_workers_two_at_a_time(inside: Inside, searched: Path) -> None:
    assert inside.address is not None
    overrides = [
        "scaling.num_workers=2", "search.max_concurrent=null", "search.num_trials=4", "train.max_steps=4",
        "train.hooks=[]",
    ]  # fmt: skip
    outcome = inside.run("tune", searched, *overrides, "--json", "--address", inside.address)
    assert outcome.code == 0, outcome.told()
    assert trials_of(outcome.object) == [(number, "complete") for number in range(4)]
    notes = [one["message"] for one in inside.events(outcome.object["run_id"], "note")]
    assert any(one.startswith("2 trials at a time: each needs 2 workers of 1 CPU") for one in notes), notes
    runs = [inside.show(one["run_id"])["run"] for one in outcome.object["trials"]]
    changes = sorted(
        change for run in runs for change in ((run["started_at"], 1), (run["ended_at"], -1))
    )  # fmt: skip
    at_once = [sum(by for _, by in changes[: i + 1]) for i in range(len(changes))]
    assert max(at_once) == 2


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_loss_latency_and_size_give_a_front(inside: Inside, searched: Path) -> None:
    """The three objectives of docs/tuning.md."""
    assert inside.address is not None
    objectives = "[{metric: eval/loss}, {metric: eval/duration_s}, {metric: result/bytes}]"
    outcome = inside.run(
        "tune", searched, f"search.objectives={objectives}", "search.scheduler=auto", "train.max_steps=4",
        "train.hooks=[]", "--json", "--address", inside.address,
    )  # fmt: skip
    assert outcome.code == 0, outcome.told()
    told = outcome.object
    assert trials_of(told) == [(number, "complete") for number in range(3)]
    for one in told["trials"]:
        assert len(one["objectives"]) == 3
        assert all(math.isfinite(value) and value > 0 for value in one["objectives"])
    folder = Path(told["files"]["best"]).parent
    names = ["best.yaml", *(f"front-{i}.yaml" for i in range(2, len(told["best"]) + 1))]
    assert sorted(one.name for one in folder.glob("*.yaml")) == sorted(names)
    for name, one in zip(names, told["best"], strict=True):
        assert load_spec(folder / name).train.learning_rate == one["values"]["train.learning_rate"]

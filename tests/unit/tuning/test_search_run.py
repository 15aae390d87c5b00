"""A whole search around a Ray Tune that answers at once; the real one is in tests/integration."""

from __future__ import annotations

import time
from typing import Any

import pytest
from conftest_search import RecipeMaker
from conftest_search_run import InPlaceOfRay, learned, tune

from raytrain.errors import ConfigError, RefusedError, TrainingError
from raytrain.runs import carrying
from raytrain.runs.ownership import Owner
from raytrain.runs.records import open_records
from raytrain.tuning import beforehand, search
from raytrain.tuning.forecast import Probe
from raytrain.tuning.study import StudyMemory
from raytrain.tuning.task import Ended, TrialTask

pytestmark = pytest.mark.slow


def test_a_search_to_its_end_and_the_same_command_again(tune_recipe: RecipeMaker, ray: InPlaceOfRay) -> None:
    first = tune(tune_recipe("search.num_trials=4"), ray)
    assert (first.state, first.ended_by, ray.made) == ("succeeded", "all trials are made", [0, 1, 2, 3])
    losses = [row.view.objectives for row in first.rows]
    assert first.best[0].view.objectives == min(one for one in losses if one)
    assert "one trial at a time: as the test wants it" in ray.notes
    again = tune(tune_recipe("search.num_trials=4"), ray)
    assert (again.digest, ray.connected) == (first.digest, 1), "nothing is left to do, and no Ray is started"
    more = tune(tune_recipe("search.num_trials=6"), ray)
    assert (ray.made, len(more.rows)) == ([0, 1, 2, 3, 4, 5], 6)
    run = open_records().get_run(first.run_id)
    assert (run.kind, run.state) == ("tune", "succeeded")
    assert (
        search.tune(tune_recipe("search.num_trials=1"), fresh=True, observer=ray).run_id
        == f"{first.run_id}.2"
    )


def test_a_budget_ends_it_with_the_best_so_far_and_a_larger_one_goes_on(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay
) -> None:
    ray.seconds = 0.3
    priced = ("search.budget.cost=0.0005", "cost.cpu_hour=3")  # 0.6 s of one CPU
    first = tune(tune_recipe("search.num_trials=50", *priced), ray)
    assert first.ended_by.startswith("search.budget.cost: ")
    assert first.state == "succeeded"
    assert 1 <= len(ray.made) <= 8
    assert first.best
    made = len(ray.made)
    ray.seconds = 0.0
    assert tune(tune_recipe("search.num_trials=50", *priced), ray).ended_by.startswith("search.budget.cost: ")
    assert len(ray.made) == made, "what was spent before counts"
    tune(tune_recipe(f"search.num_trials={made + 3}"), ray)
    assert max(ray.made) == made + 2


@pytest.mark.parametrize("limit", ["gpu_hours", "cost"])
def test_a_trial_costs_what_its_own_workers_do(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay, limit: str
) -> None:
    """The recipe has one worker with a GPU; each trial has 8, and takes 0.2 s at least."""
    space = {
        "scaling.num_workers": {"type": "choice", "choices": [8]},
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1},
    }
    ray.seconds = 0.2
    given = {"gpu_hours": 8 * 0.5 / 3600, "cost": 8 * 0.5}
    recipe = tune_recipe(
        "scaling.use_gpu=true", "cost.gpu_hour=3600", f"search.budget.{limit}={given[limit]}",
        "search.num_trials=12", space=space,
    )  # fmt: skip
    found = tune(recipe, ray)
    assert found.ended_by.startswith(f"search.budget.{limit}: ")
    assert len(ray.made) <= 4, "the time of 8 GPUs is over after two or three trials"
    again = tune(recipe, ray)
    assert again.ended_by.startswith(f"search.budget.{limit}: "), "also by what the study has kept"


def test_what_a_killed_command_and_the_probe_took_counts(tune_recipe: RecipeMaker, ray: InPlaceOfRay) -> None:
    recipe = tune_recipe("search.num_trials=1", "search.budget.cost=1", "cost.cpu_hour=3")
    kept: list[float] = []

    def looks(task: TrialTask) -> Ended:
        time.sleep(0.5)
        kept.append(ray.searcher.memory.trial(task.number).spent_s)
        return learned(task)

    ray.objective = looks
    tune(recipe, ray)
    assert kept[0] > 0.1, "a kill in the middle of a trial forgets nothing"
    records = open_records()
    probed = f"{recipe.run_id}-probe"
    records.create_run(probed, kind="train", name="probe", config={})
    records.claim_run(probed, Owner.current(), now=1_000.0)
    records.set_state(probed, "succeeded", now=3_000.0)  # of 1,200 s that the budget has
    more = tune(tune_recipe("search.num_trials=2", "search.budget.cost=1", "cost.cpu_hour=3"), ray)
    assert more.ended_by.startswith("search.budget.cost: ")
    assert ray.made == [0]


def test_the_recipes_own_values_come_first_also_after_a_kill(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay
) -> None:
    recipe = tune_recipe("search.num_trials=3")
    memory = StudyMemory(recipe, recipe.run_id)
    memory.ask()  # a command that was killed before
    found = tune(recipe, ray)
    assert "the recipe's own values" in [row.view.attrs.get("origin") for row in found.rows]
    tune(tune_recipe("search.num_trials=4"), ray)
    assert len(StudyMemory(recipe, recipe.run_id).trials()) == 4, "they are enqueued once"


@pytest.mark.parametrize("num_trials", [2, 20])
def test_a_grid_is_done_when_each_of_its_points_is(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay, num_trials: int
) -> None:
    space = {"train.learning_rate": {"type": "choice", "choices": [0.1, 0.01, 0.001]}}
    recipe = tune_recipe("search.sampler=grid", f"search.num_trials={num_trials}", space=space)
    assert len(tune(recipe, ray).rows) == 3
    tune(recipe, ray)
    assert (ray.made, ray.connected) == ([0, 1, 2], 1)


def test_runs_stop_ends_it_and_the_command_goes_on(tune_recipe: RecipeMaker, ray: InPlaceOfRay) -> None:
    recipe = tune_recipe("search.num_trials=40")

    def stop_at_third(task: TrialTask) -> Ended:
        if task.number == 2 and ray.made.count(2) == 1:
            assert open_records().request_stop(recipe.run_id)
            time.sleep(1.0)
            return Ended("stopped", "asked to stop", global_step=7)
        return learned(task)

    ray.objective = stop_at_third
    first = tune(recipe, ray)
    assert (first.state, first.ended_by) == ("cancelled", "asked to stop by `raytrain runs stop`")
    assert first.rows[2].view.state == "running"
    tune(tune_recipe("search.num_trials=5"), ray)
    assert ray.made == [0, 1, 2, 2, 3, 4], "the one that was left is taken up first"
    assert any(one.startswith("goes on: 3 trials are known, 1 of them") for one in ray.notes)


def test_runs_stop_is_heard_and_the_search_beats_while_the_probe_goes_on(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tune_recipe("search.probe_steps=3")
    beats: list[float | None] = []

    def probe(_spec: Any, run_id: str, _num_steps: int, *, verbose: bool) -> str:
        records = open_records()
        records.create_run(run_id, kind="train", name="probe", config={}, config_digest=str(verbose))
        records.claim_run(run_id, Owner.current())
        beats.append(records.get_run(recipe.run_id).heartbeat_at)
        time.sleep(0.3)
        beats.append(records.get_run(recipe.run_id).heartbeat_at)
        assert records.request_stop(recipe.run_id)
        deadline = time.monotonic() + 20
        while not records.stop_requested(run_id):
            assert time.monotonic() < deadline, "nobody told the probe"
            time.sleep(0.01)
        records.set_state(run_id, "cancelled")
        return "a request"

    monkeypatch.setattr(beforehand, "probe", probe)
    monkeypatch.setattr(carrying, "_BEAT_EVERY_S", 0.02)
    monkeypatch.setattr(beforehand, "_LOOK_EVERY_S", 0.02)
    found = tune(recipe, ray)
    assert (found.state, found.ended_by) == ("cancelled", "asked to stop by `raytrain runs stop`")
    assert beats[0] is not None
    assert beats[1] is not None
    assert beats[1] > beats[0]
    assert ray.made == []


def test_a_forecast_that_nobody_agrees_to_begins_no_trial_and_is_kept(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tune_recipe("search.probe_steps=3", "search.num_trials=2", "cost.cpu_hour=3600")
    probed: list[str] = []

    def probe(_spec: Any, run_id: str, _num_steps: int, *, verbose: bool) -> Probe:
        assert not verbose
        probed.append(run_id)
        return Probe(start_s=1.0, step_s=0.1, eval_s=0.0, num_rows=80, checkpoint_bytes=10, result_bytes=1)

    monkeypatch.setattr(beforehand, "probe", probe)
    ray.most_cost = 9.0  # 2 trials of 40 steps take 5 s each, on one CPU
    with pytest.raises(RefusedError, match="no trial was begun"):
        tune(recipe, ray)
    assert (ray.made, open_records().get_run(recipe.run_id).state) == ([], "failed")
    ray.most_cost = 11.0
    found = tune(recipe, ray)
    assert (found.state, ray.made, len(probed)) == ("succeeded", [0, 1], 1), "the probe is made once"
    assert (found.forecast or {})["cost"] == pytest.approx(10.0)


def test_a_stopped_search_stops_its_trial_however_many_runs_there_are(
    tune_recipe: RecipeMaker, ray: InPlaceOfRay
) -> None:
    recipe = tune_recipe()
    heard: list[bool] = []

    def waits(task: TrialTask) -> Ended:
        records = open_records()
        for run_id in (task.run_id, *(f"newer-{i}" for i in range(51))):
            records.create_run(run_id, kind="train", name="r", config={})
            records.claim_run(run_id, Owner.current())
        records.request_stop(recipe.run_id)
        deadline = time.monotonic() + 5
        while not (is_told := records.stop_requested(task.run_id)) and time.monotonic() < deadline:
            time.sleep(0.02)
        heard.append(is_told)
        return Ended("stopped", "asked to stop", global_step=7)

    ray.objective = waits
    tune(recipe, ray)
    assert heard == [True]


def test_failures_end_it_and_are_recorded(tune_recipe: RecipeMaker, ray: InPlaceOfRay) -> None:
    ray.objective = lambda _: Ended("failed", "the disk is full", "free some space")
    recipe = tune_recipe("search.max_failed_trials=2")
    with pytest.raises(TrainingError) as caught:
        tune(recipe, ray)
    assert (caught.value.why, caught.value.fix) == ("the disk is full", "free some space")
    run = open_records().get_run(recipe.run_id)
    assert (run.state, (run.error or {})["why"]) == ("failed", "the disk is full")
    ray.objective = learned
    assert tune(tune_recipe("search.max_failed_trials=2"), ray).best, "mended, the same command goes on"


def test_an_objective_that_nobody_reports(tune_recipe: RecipeMaker, ray: InPlaceOfRay) -> None:
    ray.objective = lambda _: Ended("unreported", "eval/los", metrics={"eval/loss": 1.0})
    with pytest.raises(ConfigError, match="no trial reports `eval/los`"):
        tune(tune_recipe(), ray)


def test_without_any_result_it_is_a_failure(tune_recipe: RecipeMaker, ray: InPlaceOfRay) -> None:
    ray.objective = lambda _: Ended("pruned", "others were better")
    with pytest.raises(TrainingError) as caught:
        tune(tune_recipe("search.num_trials=3"), ray)
    assert "no trial has come to its end" in caught.value.what
    assert "others were better" in caught.value.why

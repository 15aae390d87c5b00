"""The memory of a search: what it survives, and what the sampler is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest_search import RECIPE, RecipeMaker

from raytrain.errors import TrainingError
from raytrain.runs.records import open_records
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.study import StudyMemory, TrialMemory
from raytrain.tuning.study_storage import open_storage
from raytrain.tuning.task import TrialTask
from raytrain.tuning.warm_start import warm_start

pytestmark = pytest.mark.whole

LEARNING_RATE = "train.learning_rate"


def ended(chooser: Chooser) -> TrialTask:
    task = chooser.next()
    assert isinstance(task, TrialTask)
    return task


# Killed between asking and telling

SEARCH = """
import json, os, sys, time
from pathlib import Path
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.spec import load_tune_recipe
from raytrain.tuning.study import StudyMemory, TrialMemory
from raytrain.runs.records import open_records
open_records()
recipe = load_tune_recipe(Path(sys.argv[1]))
memory = StudyMemory(recipe, "search")
chooser = Chooser(memory, print)
def say(**told):
    with open(sys.argv[2], "a") as stream:
        stream.write(json.dumps(told) + "\\n")
        stream.flush()
        os.fsync(stream.fileno())
say(left=chooser.num_left)
while (task := chooser.next()) != "finished":
    say(begun=task.number, values=dict(task.values))
    time.sleep(0.03)
    value = task.values["train.learning_rate"] * task.values["adapter.lora_rank"]
    trial = TrialMemory(recipe, "search", task.number, memory.study._storage)
    for step in (5, 10):
        if trial.report(value * step, step):
            memory.tell_pruned(task.number, "others were better")
            break
    else:
        time.sleep(0.03)
        memory.tell_complete(task.number, [value])
    say(told=task.number)
say(finished=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.thorough)], indirect=True
)
def test_a_search_that_is_killed_again_and_again_loses_and_repeats_nothing(
    tmp_path: Path, tune_recipe: RecipeMaker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTRAIN_DATABASE", database_url)
    place, log = tmp_path / "search.yaml", tmp_path / "told.jsonl"
    recipe = {**RECIPE, "search": {**RECIPE["search"], "num_trials": 40}}
    place.write_text(yaml.safe_dump(recipe))
    program = tmp_path / "search.py"
    program.write_text(SEARCH)

    def lines() -> list[dict[str, Any]]:
        return [json.loads(one) for one in log.read_text().splitlines()] if log.exists() else []

    kills = 0
    for wait_for in (5, 9, 14, 22, 30, 10_000):
        process = subprocess.Popen([sys.executable, str(program), str(place), str(log)])
        try:
            while process.poll() is None:
                if kills < 5 and len([one for one in lines() if "begun" in one]) >= wait_for:
                    os.kill(process.pid, signal.SIGKILL)
                    kills += 1
                    process.wait()
                time.sleep(0.005)
        finally:
            process.kill()  # a test that is ended in its middle leaves nobody behind
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills == 5, "it was not killed as often as it should have been"
    told = lines()
    assert told[-1] == {"finished": True}

    memory = StudyMemory(tune_recipe("search.num_trials=40"), "search")
    trials = memory.trials()
    assert [one.number for one in trials] == list(range(40)), (
        "no trial is lost, and none is made beyond the number"
    )
    assert {one.state for one in trials} <= {"complete", "pruned"}
    assert {"complete", "pruned"} <= {one.state for one in trials}
    for one in trials:
        if one.objectives is not None:
            assert one.objectives == [one.values[LEARNING_RATE] * one.values["adapter.lora_rank"]]
    settled: set[int] = set()
    values: dict[int, Any] = {}
    for one in told:
        if "begun" in one:
            assert one["begun"] not in settled, "a trial whose result was told is made again"
            assert values.setdefault(one["begun"], one["values"]) == one["values"], (
                "it came back with other values"
            )
        elif "told" in one:
            settled.add(one["told"])
    drawn = [tuple(sorted(one.values.items())) for one in trials]
    assert len(set(drawn)) == len(drawn), "a search that goes on draws other values"


def test_a_trial_that_was_killed_while_its_values_were_chosen_gets_the_rest(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe("search.sampler=random")
    chosen = StudyMemory(recipe, "s").study.ask().suggest_float(LEARNING_RATE, 1e-5, 1e-1, log=True)
    task = ended(Chooser(StudyMemory(recipe, "s"), print))
    assert task.number == 0
    assert task.values[LEARNING_RATE] == chosen
    assert sorted(task.values) == sorted(recipe.search.space)
    assert StudyMemory(recipe, "s").trial(0).values == task.values


def test_values_that_are_not_allowed_are_pruned_also_where_they_were_left(tune_recipe: RecipeMaker) -> None:
    space = {
        LEARNING_RATE: {"type": "float", "low": 1e-4, "high": 1e-3},
        "train.min_learning_rate": {"type": "float", "low": 2e-3, "high": 5e-3},
    }
    recipe = tune_recipe("search.max_failed_trials=2", space=space)
    StudyMemory(recipe, "s").study.ask()
    memory = StudyMemory(recipe, "s")
    with pytest.raises(TrainingError):
        Chooser(memory, lambda _text: None).next()
    assert [one.state for one in memory.trials()] == ["pruned", "pruned"]


def test_hyperband_ends_trials_before_one_is_whole(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe("search.scheduler=hyperband")
    memory = StudyMemory(recipe, "s")
    chooser = Chooser(memory, print)
    ends = []
    for i in range(6):
        trial = TrialMemory(recipe, "s", ended(chooser).number)
        ends.append(any(trial.report(float(i), step) for step in (5, 10, 15, 20)))
    assert True in ends


# What is told


def test_pruned_trials_are_told_with_what_they_reported(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe()
    memory = StudyMemory(recipe, "s")
    chooser = Chooser(memory, print)
    for value in (1.0, 2.0):
        task = ended(chooser)
        trial = TrialMemory(recipe, "s", task.number)
        should_end = trial.report(value, 5)
        assert should_end is (value == 2.0), "ASHA lets one of three go on"
        if should_end:
            memory.tell_pruned(task.number, "others were better")
        else:
            memory.tell_complete(task.number, [value])
    found = memory.trials()
    assert [one.state for one in found] == ["complete", "pruned"]
    assert found[1].last_reported == 2.0
    assert found[1].reason == "others were better"
    assert [one.number for one in memory.best()] == [0]


def test_what_ends_trials_early_is_remembered_by_the_storage(tune_recipe: RecipeMaker) -> None:
    """A second memory, as after a kill, judges by what the first was told."""
    recipe = tune_recipe("search.scheduler=median")
    first = StudyMemory(recipe, "s")
    chooser = Chooser(first, print)
    for value in (1.0, 1.1, 1.2):
        task = ended(chooser)
        assert not TrialMemory(recipe, "s", task.number).report(value, 5)
        first.tell_complete(task.number, [value])
    second = StudyMemory(recipe, "s")
    task = ended(Chooser(second, print))
    assert TrialMemory(recipe, "s", task.number).report(9.0, 5)


def test_a_combination_that_is_not_allowed_is_a_pruned_trial_with_the_reason(
    tune_recipe: RecipeMaker,
) -> None:
    space = {
        LEARNING_RATE: {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "train.min_learning_rate": {"type": "float", "low": 0.0, "high": 5e-3},
    }
    recipe = tune_recipe(
        "search.sampler=random", "search.num_trials=12", "search.max_failed_trials=12", space=space
    )
    memory = StudyMemory(recipe, "s")
    notes: list[str] = []
    chooser = Chooser(memory, notes.append)
    while (task := chooser.next()) != "finished":
        assert isinstance(task, TrialTask)
        assert task.values["train.min_learning_rate"] <= task.values[LEARNING_RATE]
        memory.tell_complete(task.number, [1.0])
    pruned = [one for one in memory.trials() if one.state == "pruned"]
    assert pruned
    assert all("min_learning_rate" in (one.reason or "") for one in pruned)
    assert len(memory.trials()) == 12, "they count as trials"
    assert len(notes) == len(pruned)


def test_trials_that_always_fail_end_the_search_with_the_reason(tune_recipe: RecipeMaker) -> None:
    space = {"train.min_learning_rate": {"type": "float", "low": 0.1, "high": 0.2}}
    memory = StudyMemory(tune_recipe("search.max_failed_trials=4", space=space), "s")
    with pytest.raises(TrainingError) as caught:
        Chooser(memory, lambda _text: None).next()
    assert caught.value.what == "4 trials in a row failed, the last of them trial 3"
    assert "min_learning_rate" in caught.value.why


def test_one_good_trial_between_failures_lets_the_search_go_on(tune_recipe: RecipeMaker) -> None:
    chooser = Chooser(StudyMemory(tune_recipe("search.max_failed_trials=2"), "s"), print)
    chooser.failed(0, "why")
    chooser.succeeded()
    chooser.failed(2, "why")
    with pytest.raises(TrainingError):
        chooser.failed(3, "why")


def test_a_grid_is_made_once_and_then_over(tune_recipe: RecipeMaker) -> None:
    space = {
        "adapter.lora_rank": {"type": "choice", "choices": [4, 8]},
        "train.schedule": {"type": "choice", "choices": ["linear", "cosine", "constant"]},
    }
    recipe = tune_recipe("search.sampler=grid", "search.num_trials=2", space=space)
    seen = []
    for _ in range(2):  # the second is the same command again, in the middle
        memory = StudyMemory(recipe, "s")
        chooser = Chooser(memory, print)
        for _ in range(3):
            task = ended(chooser)
            seen.append((task.values["adapter.lora_rank"], task.values["train.schedule"]))
            memory.tell_complete(task.number, [0.0])
    assert chooser.next() == "finished"
    assert len(set(seen)) == 6


def test_points_of_a_grid_that_are_refused_end_nothing(tune_recipe: RecipeMaker) -> None:
    space = {
        LEARNING_RATE: {"type": "choice", "choices": [1e-4, 1e-3, 1e-2]},
        "train.min_learning_rate": {"type": "choice", "choices": [2e-4, 3e-4, 5e-4, 8e-4]},
    }
    recipe = tune_recipe("search.sampler=grid", "search.max_failed_trials=2", space=space)
    memory = StudyMemory(recipe, "s")
    notes: list[str] = []
    chooser = Chooser(memory, notes.append)
    made = []
    while (task := chooser.next()) != "finished":
        assert isinstance(task, TrialTask)
        made.append((task.values[LEARNING_RATE], task.values["train.min_learning_rate"]))
        memory.tell_complete(task.number, [0.0])
    assert made == [(rate, least) for rate in (1e-3, 1e-2) for least in (2e-4, 3e-4, 5e-4, 8e-4)]
    assert memory.counts() == {"pruned": 4, "complete": 8}, "each point once"
    assert len(notes) == 4, "each refused one is told"


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp", "random", "nsga2"])
def test_each_sampler_learns_through_the_storage(tune_recipe: RecipeMaker, sampler: str) -> None:
    space = {
        LEARNING_RATE: {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "train.weight_decay": {"type": "float", "low": 0.0, "high": 1.0},
    }
    recipe = tune_recipe(f"search.sampler={sampler}", "search.num_trials=14", space=space)
    for _ in range(2):
        memory = StudyMemory(recipe, "s")
        chooser = Chooser(memory, print)
        for _ in range(7):
            task = ended(chooser)
            memory.tell_complete(task.number, [task.values[LEARNING_RATE]])
    assert chooser.next() == "finished"
    drawn = [tuple(sorted(one.values.items())) for one in memory.trials()]
    assert len(drawn) == 14
    assert len(set(drawn)) > 8, "the second command does not draw the first one's values again"


# Several objectives


def test_a_pareto_front(tune_recipe: RecipeMaker) -> None:
    objectives = "[{metric: eval/loss}, {metric: train/tokens_per_second, mode: max}]"
    recipe = tune_recipe(f"search.objectives={objectives}")
    memory = StudyMemory(recipe, "s")
    chooser = Chooser(memory, print)
    for loss, speed in ((1.0, 10.0), (2.0, 20.0), (3.0, 5.0)):
        task = ended(chooser)
        assert not TrialMemory(recipe, "s", task.number).report(loss, 5)
        memory.tell_complete(task.number, [loss, speed])
    assert [one.number for one in memory.best()] == [0, 1]


# What is tried first


def record_run(recipe: Any, run_id: str, loss: float, **train: Any) -> None:
    records = open_records()
    config = recipe.spec.to_dict()
    config["train"] |= train
    records.create_run(run_id, kind="train", name=recipe.spec.name, config=config)
    records.add_metrics(run_id, [(40, 0.0, {"eval/loss": loss})])
    records.set_state(run_id, "succeeded")


def test_first_the_recipes_own_values_then_the_best_earlier_runs(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe("search.warm_start=2")
    record_run(recipe, "good", 0.5, learning_rate=0.02)
    record_run(recipe, "best", 0.1, learning_rate=0.05)
    record_run(recipe, "third", 0.7, learning_rate=0.03)
    record_run(recipe, "outside", 0.0, learning_rate=0.5)
    record_run(recipe, "another-recipe", 0.0, learning_rate=0.06, num_epochs=9.0)
    record_run(recipe, "no-number", float("nan"), learning_rate=0.07)
    memory = StudyMemory(recipe, "s")
    notes = warm_start(memory, open_records())
    assert notes == ["tried first: the values of run best", "tried first: the values of run good"]
    chooser = Chooser(memory, print)
    first = [ended(chooser).values[LEARNING_RATE] for _ in range(3)]
    assert first == [1e-3, 0.05, 0.02]


def test_a_default_outside_its_range_is_told(tune_recipe: RecipeMaker) -> None:
    memory = StudyMemory(tune_recipe("train.learning_rate=0.5"), "s")
    (note,) = warm_start(memory, open_records())
    assert note.startswith("the recipe's own train.learning_rate lie outside")
    task = ended(Chooser(memory, print))
    assert task.values["adapter.lora_rank"] == 16
    assert 1e-5 <= task.values[LEARNING_RATE] <= 0.1


# A population


@pytest.fixture
def population(tune_recipe: RecipeMaker) -> Any:
    return tune_recipe(
        "search.scheduler=pbt", "train.schedule=constant", "search.population.interval_steps=10",
        "search.population.size=3",
        space={LEARNING_RATE: {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}},
    )  # fmt: skip


def test_a_population_goes_from_generation_to_generation_also_where_it_is_killed(population: Any) -> None:
    made, storage = [], open_storage()
    while True:
        # Each trial in a memory of its own: nothing is kept outside the storage.
        memory = StudyMemory(population, "s", storage)
        task = Chooser(memory, print).next()
        if task == "finished":
            break
        assert isinstance(task, TrialTask)
        assert task.donor is not None
        made.append((task.number, task.donor.run_id, task.donor.until_step))
        again = Chooser(StudyMemory(population, "s", storage), print).next()
        assert again == task, "the one that was left running"
        memory.tell_complete(task.number, [task.values[LEARNING_RATE]])
    assert [until for _, _, until in made] == [10] * 3 + [20] * 3 + [30] * 3 + [40] * 3
    assert all(donor is None for _, donor, _ in made[:3])
    donors = [donor for _, donor, _ in made[3:6]]
    assert None not in donors
    assert len(set(donors)) == 2, "one of three is replaced"


def test_the_next_generation_waits_for_the_last_member(population: Any) -> None:
    chooser = Chooser(StudyMemory(population, "s"), print)
    for _ in range(3):
        ended(chooser)
    assert chooser.next() == "wait"

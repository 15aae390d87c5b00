"""Samplers and schedulers together: each comes to learn, and what cannot is told."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from conftest_search import RecipeMaker

from raytrain.errors import ConfigError
from raytrain.tuning.beforehand import told_beforehand
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.placement import Placement
from raytrain.tuning.study import StudyMemory, TrialMemory
from raytrain.tuning.task import TrialTask

pytestmark = pytest.mark.whole

LEARNING_RATE = "train.learning_rate"
SPACE = {
    LEARNING_RATE: {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "train.weight_decay": {"type": "float", "low": 0.0, "high": 1.0},
}


def drawn_by_the_model(recipe: Any, *, mode: float = 1.0) -> list[bool]:
    """Of each trial of a whole search, whether its values came from what the sampler has learnt."""
    storage = optuna.storages.InMemoryStorage()
    memory = StudyMemory(recipe, "s", storage)
    chooser = Chooser(memory, print)
    sampler, learnt = memory.study.sampler, []
    sample_relative = sampler.sample_relative

    def looked_at(*given: Any) -> dict[str, Any]:
        found: dict[str, Any] = sample_relative(*given)
        learnt.append(bool(found))
        return found

    sampler.sample_relative = looked_at
    while (task := chooser.next()) != "finished":
        assert isinstance(task, TrialTask)
        rate, decay = task.values[LEARNING_RATE], task.values["train.weight_decay"]
        loss = (math.log10(rate) + 2.5) ** 2 + decay if rate < 0.03 else math.nan
        trial = TrialMemory(recipe, "s", task.number, storage)
        if any(trial.report(mode * (loss + 1 / step), step) for step in (5, 15)) or math.isnan(loss):
            memory.tell_pruned(task.number, "others were better by then")
        else:
            memory.tell_complete(task.number, [mode * loss])
    return learnt


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp"])
def test_each_sampler_learns_whatever_ends_trials_early(
    tune_recipe: RecipeMaker, sampler: str, scheduler: str
) -> None:
    recipe = tune_recipe(
        f"search.sampler={sampler}", f"search.scheduler={scheduler}", "search.num_trials=20", space=SPACE
    )
    learnt = drawn_by_the_model(recipe)
    assert len(learnt) == 20
    assert sum(learnt) >= 5, f"{sum(learnt)} of 20 trials were chosen, all others drawn at random"
    assert all(learnt[learnt.index(True) :]), "once it has learnt it goes on"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_is_no_number_is_worse_than_any_to_cmaes(tune_recipe: RecipeMaker, mode: str) -> None:
    objective = f"search.objectives=[{{metric: eval/loss, mode: {mode}}}]"
    recipe = tune_recipe("search.sampler=cmaes", objective, space=SPACE)
    storage = optuna.storages.InMemoryStorage()
    memory = StudyMemory(recipe, "s", storage)
    number, _ = memory.ask()
    TrialMemory(recipe, "s", number, storage).report(math.nan, 5)
    assert memory.study.trials[0].intermediate_values == {5: math.inf if mode == "min" else -math.inf}


def told(recipe: Any) -> list[str]:
    return list(told_beforehand(recipe, Placement(1, "why"), []))[1:]


@pytest.mark.parametrize("sampler", ["gp", "nsga2"])
def test_a_sampler_that_learns_from_whole_trials_alone_gets_them(
    tune_recipe: RecipeMaker, sampler: str
) -> None:
    recipe = tune_recipe(f"search.sampler={sampler}")
    assert recipe.scheduler == "none"
    assert told(recipe) == [f"sampler {sampler} learns from whole trials alone: no trial is ended early"]
    asked_for = tune_recipe(f"search.sampler={sampler}", "search.scheduler=median")
    assert asked_for.scheduler == "median"
    assert told(asked_for) == [
        f"sampler {sampler} learns from whole trials alone: from those that median ends early, nothing"
    ]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_the_others_have_asha_and_nothing_to_tell(tune_recipe: RecipeMaker, sampler: str) -> None:
    recipe = tune_recipe(f"search.sampler={sampler}")
    assert (recipe.scheduler, told(recipe)) == ("asha", [])


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["search.objectives=[{metric: run/duration_s}]"], "run/duration_s is known at the end of a trial alone"),
        (["search.objectives=[{metric: result/bytes}]"], "result/bytes is known at the end of a trial alone"),
        (["train.eval_every=0"], "eval/loss is measured at the end of a trial alone: train.eval_every is 0"),
    ],
)  # fmt: skip
def test_an_objective_that_no_trial_reports_while_it_runs(
    tune_recipe: RecipeMaker, overrides: list[str], why: str
) -> None:
    recipe = tune_recipe(*overrides)
    assert recipe.scheduler == "none"
    assert told(recipe) == [f"{why}: no trial is ended early"]
    assert told(tune_recipe(*overrides, "search.scheduler=none")) == []
    for scheduler in ("asha", "hyperband", "median"):
        with pytest.raises(ConfigError) as caught:
            tune_recipe(*overrides, f"search.scheduler={scheduler}")
        assert caught.value.what == f"search.scheduler {scheduler} has nothing to compare"
        assert caught.value.why == why
        assert "search.scheduler=none" in caught.value.fix


def test_a_searched_eval_every_is_one(tune_recipe: RecipeMaker) -> None:
    space = {"train.eval_every": {"type": "choice", "choices": [2, 5]}}
    assert tune_recipe("train.eval_every=0", "search.scheduler=asha", space=space).scheduler == "asha"

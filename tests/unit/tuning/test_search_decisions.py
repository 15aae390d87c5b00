"""Placement, budget, disk, forecast and population: decided from plain numbers."""

from __future__ import annotations

from typing import Any

import pytest
from conftest_search import RecipeMaker

from raytrain.errors import ConfigError
from raytrain.runs.cost import cost_of
from raytrain.runs.cost_section import CostSection
from raytrain.training.section import ScalingSection
from raytrain.tuning.budget import Drop, Kept, Spent, choose_to_drop, exhausted
from raytrain.tuning.forecast import Probe, forecast, told_forecast
from raytrain.tuning.placement import choose_placement
from raytrain.tuning.population import Member, next_generation
from raytrain.tuning.searched_workers import searched_workers
from raytrain.tuning.section import BudgetSection

LAPTOP = [{"CPU": 2.0}]
CLUSTER = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}]
RATE = {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}


@pytest.mark.parametrize(
    ("nodes", "scaling", "limits", "at_once"),
    [
        (LAPTOP, {"num_workers": 2}, {}, 1),
        (LAPTOP, {"num_workers": 1}, {}, 2),
        (LAPTOP, {"num_workers": 3}, {}, 0),
        (LAPTOP, {"num_workers": [1, 4]}, {}, 1),
        (LAPTOP, {"num_workers": [3, 4]}, {}, 0),
        (LAPTOP, {"num_workers": 1}, {"max_concurrent": 1}, 1),
        (LAPTOP, {"num_workers": 1}, {"num_trials": 1}, 1),
        (LAPTOP, {"num_workers": 1}, {"scaling_is_searched": True}, 1),
        (CLUSTER, {"num_workers": 2, "use_gpu": True}, {}, 4),
        (CLUSTER, {"num_workers": 3, "use_gpu": True}, {}, 2),
        (CLUSTER, {"num_workers": 3, "use_gpu": True, "placement_strategy": "STRICT_PACK"}, {}, 2),
        (CLUSTER, {"num_workers": 5, "use_gpu": True, "placement_strategy": "STRICT_PACK"}, {}, 0),
        (CLUSTER, {"num_workers": 2, "cpus_per_worker": 3, "placement_strategy": "STRICT_SPREAD"}, {}, 2),
        (CLUSTER, {"num_workers": 3, "placement_strategy": "STRICT_SPREAD"}, {}, 0),
        ([{"CPU": 1.5}, {"CPU": 1.5}], {"num_workers": 2}, {}, 1),
    ],
)
def test_trials_at_once(
    nodes: list[dict[str, float]], scaling: dict[str, Any], limits: dict[str, Any], at_once: int
) -> None:
    given = {"max_concurrent": None, "num_trials": 20, **limits}
    found = choose_placement(nodes, ScalingSection(**scaling), **given)
    assert found.at_once == at_once, found
    if at_once == 1:
        assert found.told.startswith("one trial at a time: ")


@pytest.mark.parametrize(
    ("budget", "spent", "word"),
    [
        ({}, (1e9, [1e9], 10**15), None),
        ({"hours": 1}, (3599, [1e9], 0), None),
        ({"hours": 1}, (3600, [0], 0), "hours"),
        ({"gpu_hours": 4}, (0, [3000, 600], 0), None),
        ({"gpu_hours": 4}, (0, [3600, 3600], 0), "gpu_hours"),
        ({"cost": 10}, (0, [3000, 599], 0), None),
        ({"cost": 10}, (0, [7100, 100], 0), "cost"),
        ({"disk_gb": 1}, (0, [0], 999_999_999), None),
        ({"disk_gb": 1}, (0, [0], 10**9), "disk_gb"),
    ],
)
def test_each_limit_ends_the_search(
    budget: dict[str, float], spent: tuple[float, list[float], int], word: str | None
) -> None:
    scaling, prices = ScalingSection(num_workers=2, use_gpu=True), CostSection(gpu_hour=2.5)
    search_s, trials_s, disk_bytes = spent
    trials = [cost_of(seconds, scaling, prices) for seconds in trials_s]
    reason = exhausted(BudgetSection(**budget), Spent(search_s, trials, disk_bytes))
    assert (reason is None) if word is None else (reason or "").startswith(f"search.budget.{word}:")


def test_the_disk_is_cleared_from_the_worst_and_never_of_the_best() -> None:
    kept = [Kept(0, False, 1, 50, 10), Kept(1, True, 0, 50, 10), Kept(2, False, 2, 50, 10)]
    assert choose_to_drop(kept, 180, None) == []
    assert choose_to_drop(kept, 180, 181) == []
    assert choose_to_drop(kept, 180, 150) == [Drop(2, "checkpoints", 50)]
    everything = choose_to_drop(kept, 180, 1)
    assert everything == [
        Drop(2, "checkpoints", 50),
        Drop(0, "checkpoints", 50),
        Drop(1, "checkpoints", 50),
        Drop(2, "result", 10),
        Drop(0, "result", 10),
    ]


def test_a_forecast_says_which_limit_ends_it(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe("train.save_every=10")
    probed = Probe(start_s=4.0, step_s=0.5, eval_s=2.0, num_rows=100, checkpoint_bytes=1000, result_bytes=200)
    found = forecast(probed, recipe.spec, BudgetSection(), num_trials=8, at_once=2)
    # 40 steps, evaluated after every fifth
    assert found.trial_s == pytest.approx(4 + 40 * 0.5 + 8 * 2)
    assert found.search_s == pytest.approx(4 * found.trial_s)
    assert found.disk_bytes == 8 * (3 * 1000 + 200)
    assert found.ended_by is None
    short = forecast(probed, recipe.spec, BudgetSection(hours=0.02), num_trials=8, at_once=2)
    assert short.ended_by == "search.budget.hours ends it at about trial 3"


SEARCHED = {"num_workers": {"type": "choice", "choices": [1, 2, 8]}}
FLAG = {"type": "choice", "choices": [True, False]}


@pytest.mark.parametrize(
    ("own", "ranges", "longest_s", "gpus_s"),
    [
        (2, {}, None, 2 * 40.0),
        (2, SEARCHED, 4 + 2 * 36, 8 * 40.0),  # one has the work of two, and eight may take as long as two
        (8, SEARCHED, 4 + 8 * 36, 8 * 40.0),
        (8, {"num_workers": {"type": "int", "low": 1, "high": 4, "step": 3}}, 4 + 8 * 36, 4 * (4 + 2 * 36.0)),
        (2, {"num_workers": {"type": "choice", "choices": [[1, 4], 2]}}, 40.0, 4 * 40.0),
        (2, {"use_gpu": FLAG}, 40.0, 2 * 40.0),
        (2, {"cpus_per_worker": {"type": "float", "low": 1, "high": 4}}, 40.0, 2 * 40.0),
    ],
)
def test_a_forecast_counts_the_searched_workers_that_take_most(
    tune_recipe: RecipeMaker,
    own: int,
    ranges: dict[str, Any],
    longest_s: float | None,
    gpus_s: float,
) -> None:
    space = {f"scaling.{key}": one for key, one in ranges.items()} or {"train.learning_rate": RATE}
    recipe = tune_recipe(space=space, scaling={"num_workers": own, "use_gpu": True}, cost={"gpu_hour": 3.0})
    probed = Probe(start_s=4.0, step_s=0.5, eval_s=2.0, num_rows=100, checkpoint_bytes=1000, result_bytes=200)
    workers = searched_workers(recipe.space, recipe.document)
    found = forecast(probed, recipe.spec, BudgetSection(), num_trials=3, at_once=1, searched=workers)
    assert (found.trial_s, found.longest_trial_s) == (40.0, longest_s)
    assert found.search_s == 3 * (longest_s or 40.0)
    assert found.gpu_hours == pytest.approx(3 * gpus_s / 3600)
    assert found.cost == pytest.approx(3 * found.gpu_hours)


def test_a_forecast_of_searched_workers_is_told_as_what_it_is(tune_recipe: RecipeMaker) -> None:
    space = {"scaling.num_workers": SEARCHED["num_workers"]}
    recipe = tune_recipe(space=space, scaling={"num_workers": 2}, cost={"cpu_hour": 3.0})
    probed = Probe(start_s=4.0, step_s=0.5, eval_s=2.0, num_rows=100, checkpoint_bytes=1000, result_bytes=200)
    workers = searched_workers(recipe.space, recipe.document)
    budget = BudgetSection(cost=0.6)  # eight workers of one trial take 0.27
    found = forecast(probed, recipe.spec, budget, num_trials=3, at_once=1, searched=workers)
    told = told_forecast(found)
    assert "about 40s with the recipe's own workers and at most 1m 16s with those that are searched" in told
    assert told.endswith("search.budget.cost ends it at trial 2 at the earliest")


@pytest.mark.parametrize(
    ("num_bytes", "ended_by"),
    [
        (6_300, "search.budget.disk_gb ends it at about trial 1"),  # two at once take 6,400
        (6_500, "search.budget.disk_gb ends it at about trial 3"),  # and with the best one's result 6,600
        (6_700, None),
    ],
)
def test_a_forecast_says_where_the_disk_ends_it(
    tune_recipe: RecipeMaker, num_bytes: int, ended_by: str | None
) -> None:
    probed = Probe(start_s=4.0, step_s=0.5, eval_s=2.0, num_rows=100, checkpoint_bytes=1000, result_bytes=200)
    spec, budget = tune_recipe("train.save_every=10").spec, BudgetSection(disk_gb=num_bytes / 1e9)
    found = forecast(probed, spec, budget, num_trials=8, at_once=2)
    assert (found.ended_by, found.disk_bytes) == (ended_by, num_bytes)


def members(*objectives: float | None) -> list[Member]:
    return [
        Member(i, 10 + i, {"train.learning_rate": 0.01 * (i + 1)}, objective)
        for i, objective in enumerate(objectives)
    ]


def generation(recipe: Any, found: list[Member], seed: str = "0") -> list[Any]:
    return next_generation(found, recipe.space, minimize=True, replaced_fraction=0.25, seed=seed)


def test_the_worst_member_goes_on_from_the_best(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe()
    born = generation(recipe, members(0.3, 0.1, 0.9, 0.2))
    assert [one.parent_number for one in born] == [10, 11, 11, 13]
    assert [one.is_replaced for one in born] == [False, False, True, False]
    assert born[2].params["train.learning_rate"] in (pytest.approx(0.016), pytest.approx(0.025))
    assert born == generation(recipe, members(0.3, 0.1, 0.9, 0.2)), (
        "the same when it is killed and asked again"
    )
    rates = {
        generation(recipe, members(0.3, 0.1, 0.9, 0.2), str(seed))[2].params["train.learning_rate"]
        for seed in range(20)
    }
    assert len(rates) == 2


def test_failed_members_are_replaced_too(tune_recipe: RecipeMaker) -> None:
    born = generation(tune_recipe(), members(None, 0.1, float("nan"), 0.2))
    assert [one.is_replaced for one in born] == [True, False, True, True]
    assert {one.parent_number for one in born} == {11}
    with pytest.raises(ConfigError, match="no member"):
        generation(tune_recipe(), members(None, None))


def test_a_changed_value_of_a_range_with_steps_is_one_of_them(tune_recipe: RecipeMaker) -> None:
    space = {"train.weight_decay": {"type": "float", "low": 0.0, "high": 0.11, "step": 0.03}}
    recipe = tune_recipe(space=space)
    points = recipe.space.points("train.weight_decay")
    found = [Member(i, i, {"train.weight_decay": points[-1]}, float(i)) for i in range(2)]
    changed = [generation(recipe, found, str(seed))[1].params["train.weight_decay"] for seed in range(20)]
    assert set(changed) == set(points[-2:])


def test_changed_values_stay_in_their_range(tune_recipe: RecipeMaker) -> None:
    found = [
        Member(0, 0, {"train.learning_rate": 0.1, "adapter.lora_rank": 32, "train.schedule": "linear"}, 0.0),
        Member(1, 1, {"train.learning_rate": 0.1, "adapter.lora_rank": 2, "train.schedule": "linear"}, 1.0),
    ]
    for seed in range(30):
        changed = generation(tune_recipe(), found, str(seed))[1].params
        assert 1e-5 <= changed["train.learning_rate"] <= 0.1
        assert 2 <= changed["adapter.lora_rank"] <= 32
        assert isinstance(changed["adapter.lora_rank"], int)
        assert changed["train.schedule"] in ("linear", "cosine", "constant")

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest_search import RECIPE, RecipeMaker

from raytrain.config.recipe import load_recipe
from raytrain.errors import ConfigError
from raytrain.training.spec import load_spec
from raytrain.tuning.spec import load_tune_recipe

LEARNING_RATE = "train.learning_rate"


def refused(place: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_tune_recipe(place, list(overrides))
    return caught.value


def write(place: Path, text: str) -> Path:
    place.write_text("model: {base_model: some/model}\ndata: {sources: [rows.jsonl]}\n" + text)
    return place


def test_a_range_upside_down_is_told_with_file_line_and_key(tmp_path: Path) -> None:
    place = write(
        tmp_path / "a.yaml",
        "search:\n  space:\n    train.learning_rate: {type: float, low: 1e-2, high: 1e-5}\n",
    )
    error = refused(place)
    assert error.what.startswith(f"{place}:5: search.space.train.learning_rate: ")
    assert "upside down: low 0.01 lies above high 1e-05" in error.what


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{type: float, low: 1, high: 1}", "without a range"),
        ("{type: float, low: 0, high: 1, log: true}", "needs a low above 0"),
        ("{type: float, low: 0.1, high: 1, log: true, step: 0.1}", "do not go together"),
        ("{type: int, low: 5, high: 1}", "upside down"),
        ("{type: choice, choices: []}", "at least 1 item"),
        ("{type: flot, low: 1, high: 2}", "type"),
    ],
)
def test_other_faults_of_a_range(tmp_path: Path, written: str, told: str) -> None:
    place = write(tmp_path / "a.yaml", f"search:\n  space:\n    train.learning_rate: {written}\n")
    error = refused(place)
    assert told in str(error)
    assert f"{place}:5" in error.what


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("train.learning_rat", "did you mean `train.learning_rate`?"),
        ("trian.learning_rate", "did you mean `train`?"),
        ("train", "name one of its keys: train."),
        ("storage.path", "it says where things lie"),
        ("name", "it names the run"),
        ("cost.cpu_hour", "`cost` is not searched"),
    ],
)
def test_a_search_key_that_is_no_recipe_key(tmp_path: Path, key: str, told: str) -> None:
    place = write(tmp_path / "a.yaml", f"search:\n  space:\n    {key}: {{type: float, low: 1, high: 2}}\n")
    error = refused(place)
    assert told in str(error)
    assert error.what.startswith(f"{place}:5: search.space.{key}")


@pytest.mark.parametrize(
    ("key", "written", "told", "line"),
    [
        ("adapter.lora_rank", "{type: float, low: 2, high: 32}", "valid integer", 5),
        ("adapter.lora_rank", "{type: int, low: 0, high: 32}", "must be 1 or more", 5),
        ("train.learning_rate", "{type: choice, choices: [1e-3, abc]}", "valid number", 5),
        ("train.learning_rate", "{type: float, low: 50, high: 100}", "less than 10 (got 50.0)", 5),
        ("train.learning_rate", "\n      type: float\n      low: 1e-3\n      high: 100", "(got 100.0)", 8),
        ("train.schedule", "{type: choice, choices: [linear, sine]}", "(got 'sine')", 5),
        ("train.schedule", "{type: int, low: 1, high: 2}", "(got 1)", 5),
        ("data.sources.3.path", "{type: choice, choices: [a, b]}", "no element 3", 5),
        ("data.sources.0.path", "{type: choice, choices: [a, b]}", "lies inside a plain value", 5),
    ],
)
def test_a_range_with_a_value_that_its_key_never_takes(
    tmp_path: Path, key: str, written: str, told: str, line: int
) -> None:
    error = refused(write(tmp_path / "a.yaml", f"search:\n  space:\n    {key}: {written}\n"))
    assert error.what.startswith(f"{tmp_path / 'a.yaml'}:{line}: search.space.{key}: ")
    assert told in error.what


@pytest.mark.parametrize(
    "space",
    [
        {LEARNING_RATE: {"type": "int", "low": 1, "high": 2}},
        {"adapter.lora_rank": {"type": "float", "low": 2, "high": 8, "step": 2}},
        {"train.eval_every": {"type": "choice", "choices": [0, 5]}},
        # Allowed beside some values of the other alone, which each trial is checked for.
        {
            LEARNING_RATE: {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "train.min_learning_rate": {"type": "float", "low": 2e-3, "high": 5e-3},
        },
        {"scaling.strategy": {"type": "choice", "choices": ["ddp", "deepspeed"]}},
        {"train.precision": {"type": "choice", "choices": ["float32", "float16"]}},
    ],
)
def test_what_its_key_takes_also_if_not_beside_every_other(
    tune_recipe: RecipeMaker, space: dict[str, Any]
) -> None:
    assert sorted(tune_recipe(space=space).space.ranges) == sorted(space)


def test_searched_workers_without_a_price(tune_recipe: RecipeMaker) -> None:
    space = {"scaling.use_gpu": {"type": "choice", "choices": [False, True]}}
    assert tune_recipe("cost.cpu_hour=1", "cost.gpu_hour=3", "search.budget.cost=5", space=space)
    with pytest.raises(ConfigError, match=r"search\.budget\.cost: 5 cannot be held"):
        tune_recipe("cost.cpu_hour=1", "search.budget.cost=5", space=space)


def test_a_recipe_without_a_search_is_told_what_to_add(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "a.yaml", ""))
    assert "nothing to search" in error.what
    assert "search: {space:" in error.fix


def test_train_takes_the_same_recipe_with_its_own_values(tmp_path: Path) -> None:
    """`search:` changes nothing of the run that `raytrain train` means."""
    with_search = tmp_path / "mine.yaml"
    with_search.write_text(yaml.safe_dump(RECIPE))
    without = tmp_path / "other" / "mine.yaml"
    without.parent.mkdir()
    without.write_text(yaml.safe_dump({key: one for key, one in RECIPE.items() if key != "search"}))
    assert load_spec(with_search).run_id == load_spec(without).run_id
    assert load_spec(with_search).train.learning_rate == 1e-3


def test_an_override_changes_one_bound(tune_recipe: RecipeMaker) -> None:
    changed = tune_recipe("search.space.train.learning_rate.low=1e-4")
    assert changed.search.space[LEARNING_RATE].low == 1e-4
    assert changed.search.space[LEARNING_RATE].high == 1e-1
    assert changed.run_id != tune_recipe().run_id


@pytest.mark.parametrize(
    ("override", "is_the_same"),
    [
        ("search.num_trials=99", True),
        ("search.budget.hours=2", True),
        ("search.max_concurrent=1", True),
        ("scaling.num_workers=2", True),
        ("search.sampler=random", False),
        ("search.seed=1", False),
        ("search.scheduler=hyperband", False),
        ("search.min_steps=3", False),
        ("search.reduction_factor=4", False),
        ("search.population.size=3", False),
        ("search.objectives=[{metric: train/loss}]", False),
        ("train.max_steps=41", False),
    ],
)
def test_what_makes_it_another_search(tune_recipe: RecipeMaker, override: str, is_the_same: bool) -> None:
    assert (tune_recipe(override).run_id == tune_recipe().run_id) is is_the_same


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["search.objectives=[{metric: a}, {metric: b}]", "search.scheduler=asha"], "there are 2"),
        (["search.objectives=[{metric: a}, {metric: b}]", "search.sampler=cmaes"], "knows one objective"),
        (["search.objectives=[{metric: a}, {metric: a}]"], "stands twice"),
        (["search.sampler=grid"], "grid needs a step for train.learning_rate"),
        (["search.budget.cost=5"], "no price for what its workers take"),
        (["search.space.adapter.lora_rank.when={train.packing: true}"], "which is not searched"),
        (["search.scheduler=pbt"], "cannot change while the same weights"),
        (["search.num_samples=3"], "set num_trials"),
        (["search.sampler=bayes"], "search.sampler"),
        (
            [
                "search.space.adapter.lora_rank.when={train.schedule: linear}",
                "search.space.train.schedule.when={adapter.lora_rank: 4}",
            ],
            "wait for each other",
        ),
        (["search.space.adapter.lora_rank.when={train.schedule: sine}"], "its condition never holds"),
    ],
)
def test_what_does_not_go_together(tune_recipe: RecipeMaker, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tune_recipe(*overrides)
    assert told in str(caught.value)


def test_pbt_wants_what_members_can_share(tune_recipe: RecipeMaker) -> None:
    space = {LEARNING_RATE: {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}}
    with pytest.raises(ConfigError, match="pbt") as caught:
        tune_recipe("search.scheduler=pbt", space=space)
    assert caught.value.fix == "set train.schedule=constant"
    with pytest.raises(ConfigError) as caught:
        tune_recipe("search.scheduler=pbt", "train.schedule=constant", space=space)
    assert "multiple of" in caught.value.why
    right = ["search.scheduler=pbt", "train.schedule=constant", "search.population.interval_steps=10"]
    assert tune_recipe(*right, space=space).scheduler == "pbt"


def test_a_trial_has_the_recipe_with_its_values(tune_recipe: RecipeMaker) -> None:
    recipe = tune_recipe()
    spec = recipe.trial_spec({LEARNING_RATE: 1e-05, "adapter.lora_rank": 7, "train.schedule": "cosine"})
    assert (spec.train.learning_rate, spec.adapter.lora_rank, spec.train.schedule) == (1e-5, 7, "cosine")
    assert spec.train.eval_every == 5
    with pytest.raises(ConfigError, match="learning_rate"):
        recipe.trial_spec({LEARNING_RATE: -1.0})


def test_the_reference_names_every_key(tune_recipe: RecipeMaker) -> None:
    reference = (Path(__file__).parents[3] / "docs" / "reference.md").read_text()
    search = reference[reference.index("## `search`") :]
    for key in tune_recipe().search.model_dump():
        assert f"`{key}`" in search or f"search.{key}" in search, key


def test_the_document_of_a_trial_knows_its_places(tmp_path: Path) -> None:
    place = tmp_path / "mine.yaml"
    place.write_text(yaml.safe_dump(RECIPE))
    assert load_recipe(place).origin(("search", "space", LEARNING_RATE)).startswith(f"{place}:")

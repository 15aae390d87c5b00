from __future__ import annotations

from typing import Any

import optuna
import pytest
from conftest_search import RecipeMaker

from raytrain.tuning.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE: dict[str, Any] = {
    "train.warmup_steps": {
        "type": "int",
        "low": 0,
        "high": 20,
        "step": 5,
        "when": {"train.schedule": "cosine"},
    },
    "train.schedule": {"type": "choice", "choices": ["linear", "cosine", "constant"]},
    "train.weight_decay": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.1},
    "train.adam_betas": {"type": "choice", "choices": [[0.9, 0.999], [0.9, 0.95]]},
}


@pytest.fixture
def space(tune_recipe: RecipeMaker) -> Space:
    return tune_recipe(space=SPACE).space


def test_values_keep_their_ranges_and_conditions(space: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = []
    for _ in range(200):
        values = space.suggest(study.ask())
        assert ("train.warmup_steps" in values) == (values["train.schedule"] == "cosine")
        assert values.get("train.warmup_steps", 0) in (0, 5, 10, 15, 20)
        assert values["train.adam_betas"] in ([0.9, 0.999], [0.9, 0.95])
        assert values["train.weight_decay"] == pytest.approx(round(values["train.weight_decay"], 1))
        seen.append(values)
    assert {one["train.schedule"] for one in seen} == {"linear", "cosine", "constant"}
    assert {one.get("train.warmup_steps") for one in seen} == {None, 0, 5, 10, 15, 20}


def test_stored_parameters_are_the_values_again(space: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
    for _ in range(20):
        trial = study.ask()
        values = space.suggest(trial)
        assert space.values_of(trial.params) == values


def test_a_grid_has_every_combination_once(space: Space) -> None:
    grid = space.grid()
    # cosine with 5 warm-ups, two schedules without, times 4 decays and 2 pairs of betas
    assert len(grid) == (5 + 2) * 4 * 2
    assert len({tuple(sorted(one.items())) for one in grid}) == len(grid)


def test_the_recipes_own_values_as_parameters(space: Space) -> None:
    config: dict[str, Any] = {
        "train": {"schedule": "cosine", "warmup_steps": 10, "weight_decay": 0.1, "adam_betas": [0.9, 0.95]}
    }
    params, outside = space.params_of(config)
    assert outside == []
    assert space.values_of(params) == {
        "train.schedule": "cosine",
        "train.warmup_steps": 10,
        "train.weight_decay": 0.1,
        "train.adam_betas": [0.9, 0.95],
    }
    config["train"] |= {"warmup_steps": 11, "weight_decay": 0.15}
    params, outside = space.params_of(config)
    assert outside == ["train.warmup_steps", "train.weight_decay"]
    assert set(params) == {"train.schedule", "train.adam_betas"}
    config["train"]["schedule"] = "linear"
    assert "train.warmup_steps" not in space.params_of(config)[0], "its condition does not hold"

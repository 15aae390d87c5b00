from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.config.document import merge, parse_document
from raytrain.tuning.spec import TuneRecipe, load_tune_recipe

RECIPE: dict[str, Any] = {
    "model": {"base_model": "some/model"},
    "data": {"sources": ["rows.jsonl"]},
    "train": {"learning_rate": 1e-3, "eval_every": 5, "max_steps": 40},
    "search": {
        "space": {
            "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "adapter.lora_rank": {"type": "int", "low": 2, "high": 32},
            "train.schedule": {"type": "choice", "choices": ["linear", "cosine", "constant"]},
        },
        "num_trials": 8,
        "probe_steps": 0,
    },
}

RecipeMaker = Callable[..., TuneRecipe]


@pytest.fixture
def tune_recipe(tmp_path: Path) -> RecipeMaker:
    """A recipe with a search; `changes` are merged over its sections, `space` replaces its ranges."""

    def make(*overrides: str, space: dict[str, Any] | None = None, **changes: Any) -> TuneRecipe:
        recipe = copy.deepcopy(RECIPE)
        if space is not None:
            recipe["search"]["space"] = space
        base = parse_document(yaml.safe_dump(recipe), "base")
        changed = merge(base, parse_document(yaml.safe_dump(changes or {"name": "mine"}), "changes"))
        place = tmp_path / "mine.yaml"
        place.write_text(yaml.safe_dump(changed.values, sort_keys=False))
        return load_tune_recipe(place, list(overrides))

    return make

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.config.document import merge, parse_document
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location
from raytrain.training.checkpoint_store import checkpoint_folder
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


def write_checkpoint(storage: Location, run_id: str, step: int, num_bytes: int = 100) -> str:
    place = checkpoint_folder(storage, run_id) / f"step-{step:08d}"
    with ArtifactWriter(place, kind="checkpoint", parents={"dataset": "sha256:d"}) as writer:
        state = {"belonging": {"run_id": run_id, "tokens_digest": "sha256:t"}, "learning_rate": 1e-3}
        (writer.path / "state.json").write_text(json.dumps(state))
        groups = [{"params": ["a"], "weight_decay": 0.1}, {"params": ["b"], "weight_decay": 0.0}]
        (writer.path / "optimizer.json").write_text(json.dumps(groups))
        (writer.path / "trained").mkdir()
        (writer.path / "trained" / "weights").write_bytes(bytes(num_bytes))
        return writer.commit({}).digest

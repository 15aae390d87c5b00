"""What a search tries first: the recipe's own values, then those of the best earlier runs of the same recipe."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from raytrain.runs.records import Records
from raytrain.tuning.space import Params
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import StudyMemory

_DECIDE_THE_RESULT = ("model", "adapter", "data", "train")


def warm_start(memory: StudyMemory, records: Records) -> list[str]:
    """Enqueue what is tried first in a study without trials; returns what a person should know."""
    recipe, notes = memory.recipe, []
    params, outside = recipe.space.params_of(recipe.spec.to_dict())
    if outside:
        notes.append(
            f"the recipe's own {', '.join(outside)} lie outside their range: the first trial chooses them"
        )
    memory.enqueue(params, "the recipe's own values")
    for run_id, found in earlier_params(recipe, records):
        if memory.enqueue(found, f"run {run_id}"):
            notes.append(f"tried first: the values of run {run_id}")
    return notes


def earlier_params(recipe: TuneRecipe, records: Records) -> list[tuple[str, Params]]:
    """The best earlier runs of the same recipe, which differ from it in searched keys alone, with their parameters."""
    objective = recipe.objectives[0]
    wanted = _without(recipe.spec.to_dict(), recipe.space.ranges)
    found: list[tuple[float, str, Params]] = []
    for run in records.list_runs(kind="train", state="succeeded", name=recipe.spec.name, limit=1_000).runs:
        if run.name != recipe.spec.name or _without(run.config, recipe.space.ranges) != wanted:
            continue
        point = records.last_value(run.id, objective.metric)
        params, outside = recipe.space.params_of(run.config)
        if point is None or outside or not math.isfinite(point.value):
            continue
        if params not in [one for _, _, one in found]:
            found.append((point.value if objective.mode == "min" else -point.value, run.id, params))
    found.sort(key=lambda one: one[:2])
    return [(run_id, params) for _, run_id, params in found[: recipe.search.warm_start]]


def _without(config: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's result, but for the searched keys."""
    kept = {name: copy.deepcopy(config.get(name)) for name in _DECIDE_THE_RESULT}
    for key in keys:
        *above, last = key.split(".")
        place: Any = kept
        for part in above:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)
    return kept

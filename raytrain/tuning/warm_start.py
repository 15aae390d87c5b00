"""What a search tries first: the recipe's own values, then those of the best earlier runs of the same recipe, and of
one over other rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raytrain.runs.record_types import RunRecord
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
    """The best earlier runs of the same recipe, which differ from it in searched keys alone, with their parameters;
    after them the best of the newest that differ in their rows besides: what a metric is worth over other rows is
    another thing, and what was best there is worth a trial."""
    wanted = _what_decides(recipe.spec.to_dict(), recipe.space.ranges)
    same: list[_Earlier] = []
    over_others: list[_Earlier] = []
    for run in records.list_runs(kind="train", state="succeeded", name=recipe.spec.name, limit=1_000).runs:
        its_own = _what_decides(run.config, recipe.space.ranges)
        if run.name != recipe.spec.name or {**its_own, "data": wanted["data"]} != wanted:
            continue
        found = _measured(recipe, run, its_own["data"], records)
        if found is None:
            continue
        if found.data == wanted["data"]:
            same.append(found)
        elif not over_others or found.data == over_others[0].data:  # the newest come first
            over_others.append(found)
    best = [*sorted(same, key=_Earlier.rank), *sorted(over_others, key=_Earlier.rank)[:1]]
    once = [
        one for number, one in enumerate(best) if one.params not in [other.params for other in best[:number]]
    ]
    return [(one.run_id, one.params) for one in once[: recipe.search.warm_start]]


@dataclass(frozen=True)
class _Earlier:
    run_id: str
    loss: float
    """Of the first objective; less is better."""
    params: Params
    data: Any

    def rank(self) -> tuple[float, str]:
        return self.loss, self.run_id


def _measured(recipe: TuneRecipe, run: RunRecord, data: Any, records: Records) -> _Earlier | None:
    """None where it says nothing about this search."""
    objective = recipe.objectives[0]
    point = records.last_value(run.id, objective.metric)
    params, outside = recipe.space.params_of(run.config)
    if point is None or outside or not math.isfinite(point.value):
        return None
    loss = point.value if objective.mode == "min" else -point.value
    return _Earlier(run.id, loss, params, data)


def _what_decides(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
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

from __future__ import annotations

import json
import math
from typing import Any

from raytrain.training.told import Told


def point(step: int, **metrics: float) -> dict[str, Any]:
    return {"global_step": step, "time": float(step), "metrics": metrics or {"train/loss": 1.0 / step}}


def handed_over(told: Told, step: int, run_id: str = "r-1") -> Told:
    """As a checkpoint of this step, and whoever resumes from it, have it."""
    found = Told(run_id)
    found.resume(step, json.loads(json.dumps(told.content(), allow_nan=False)))
    return found


def test_what_is_no_finite_number_comes_back() -> None:
    told = Told("r-1")
    told.add(point(1, **{"train/loss": math.nan, "train/grad_norm": math.inf}))
    (found,) = handed_over(told, 1).points
    assert math.isnan(found["metrics"]["train/loss"]) and found["metrics"]["train/grad_norm"] == math.inf


def test_of_many_steps_the_newest_are_kept_each_with_all_of_its_points() -> None:
    told = Told("r-1")
    for step in range(1, 41):
        told.add(point(step))
        told.add(point(step, **{"eval/loss": 0.5}))
    assert handed_over(told, 40).after == 24
    told.add(point(41))
    found = handed_over(told, 41)
    assert found.after == 25, "of step 25 one point is left, and it is not taken for all of them"
    assert [one["global_step"] for one in found.points] == [s for s in range(26, 41) for _ in range(2)] + [41]


def test_what_came_after_the_checkpoint_is_made_again() -> None:
    told = Told("r-1")
    for step in (1, 2, 3):
        told.add(point(step))
    found = handed_over(told, 2)
    assert (found.after, [one["global_step"] for one in found.points]) == (0, [1, 2])


def test_another_run_s_are_not_told_nor_what_no_checkpoint_kept() -> None:
    told = Told("r-1")
    told.add(point(1))
    other = handed_over(told, 1, "r-2")
    assert (other.after, list(other.points)) == (1, [])
    old = Told("r-1")
    old.resume(7, None)
    assert (old.after, list(old.points)) == (7, [])

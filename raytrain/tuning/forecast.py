"""What a search will take, from a run of a few steps: told before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raytrain.cluster.section import WorkersSection
from raytrain.runs.cost import Cost, cost_of
from raytrain.runs.views import duration
from raytrain.storage.location import Location
from raytrain.training.checkpoint_store import checkpoint_folder, folder_of
from raytrain.training.observer import Silent
from raytrain.training.spec import RunSpec
from raytrain.training.trainer import train
from raytrain.tuning.budget import GB
from raytrain.tuning.section import BudgetSection

_ONCE = ("starting Ray", "preparing rows", "finding the base model")


@dataclass(frozen=True)
class Probe:
    """What a short run of the recipe took."""

    start_s: float
    """Before the first step and after the last one, as every trial has it."""
    step_s: float
    eval_s: float
    num_rows: int
    checkpoint_bytes: int
    result_bytes: int


@dataclass(frozen=True)
class Forecast:
    """Of a whole search in which no trial is ended early: at most that. Where `scaling` is searched, of trials that
    all have the workers that take most."""

    trial_s: float
    """With the recipe's own workers."""
    longest_trial_s: float | None
    """With those that are searched; None where none are."""
    search_s: float
    gpu_hours: float
    cost: float | None
    """None where the recipe has no price for it."""
    disk_bytes: int
    num_trials: int
    ended_by: str | None
    """The limit of the budget that is reached first, and at about which trial."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Watch(Silent):
    def __init__(self) -> None:
        self.num_rows = 0

    def plan(self, *, num_rows: int, **_others: Any) -> None:
        self.num_rows = num_rows


def probe(spec: RunSpec, run_id: str, num_steps: int, *, verbose: bool = False) -> Probe | str:
    """Train a few steps and drop what they gave; what stopped it, where something did. Raises what training raises."""
    short = spec.train.model_copy(update={"max_steps": num_steps, "log_every": 1, "result": "last"})
    watch, started = _Watch(), time.monotonic()
    storage = spec.storage.location
    result = train(spec.model_copy(update={"train": short}), run_id=run_id, observer=watch, verbose=verbose)
    seconds = time.monotonic() - started
    if result.artifact is None:
        return result.stopped_by or "a request"
    step_s = result.metrics.get("train/step_s", 0.0)
    eval_s = result.metrics.get("eval/duration_s", 0.0)
    once = sum(result.phases_s.get(name, 0.0) for name in _ONCE)
    found = Probe(
        max(0.0, seconds - once - num_steps * step_s - eval_s),
        step_s,
        eval_s,
        watch.num_rows,
        newest_checkpoint_bytes(storage, run_id),
        Location(result.artifact).size_bytes(),
    )
    folder_of(storage, run_id).delete()
    return found


def newest_checkpoint_bytes(storage: Location, run_id: str) -> int:
    steps = [one for one in checkpoint_folder(storage, run_id).children() if one.name.startswith("step-")]
    return steps[-1].size_bytes() if steps else 0


def forecast(
    probed: Probe,
    spec: RunSpec,
    budget: BudgetSection,
    *,
    num_trials: int,
    at_once: int,
    searched: Sequence[WorkersSection] = (),
) -> Forecast:
    """What `num_trials` whole trials take, `at_once` of them at a time; `searched` are the workers that a trial may
    have where they are not the recipe's own."""
    train = spec.train
    num_steps = train.num_steps(probed.num_rows)
    num_evals = 1 + (max(0, num_steps - 1) // train.eval_every if train.eval_every else 0)
    work_s = num_steps * probed.step_s + num_evals * probed.eval_s
    kept = (train.keep_last_n + train.keep_best_k) if train.saves else 0
    trial_bytes = kept * probed.checkpoint_bytes + probed.result_bytes
    each = [_at_most(one, probed.start_s, work_s, spec) for one in searched or [spec.scaling]]
    longest_s = 3600 * max(one.hours for one in each)
    search_s = longest_s * math.ceil(num_trials / at_once)
    gpu_hours = num_trials * max(one.gpu_hours for one in each)
    prices = [one.money for one in each if one.money is not None]
    money = num_trials * max(prices) if len(prices) == len(each) else None
    disk = trial_bytes * num_trials
    limits = [
        ("hours", budget.hours, search_s / 3600),
        ("gpu_hours", budget.gpu_hours, gpu_hours),
        ("cost", budget.cost, money or 0.0),
    ]
    reached = [
        (limit / needed * num_trials, name)
        for name, limit, needed in limits
        if limit is not None and needed > limit
    ]
    if budget.disk_gb is not None:
        limit_bytes = int(budget.disk_gb * GB)
        disk, running = min(disk, limit_bytes), at_once * trial_bytes
        # Of trials that have ended everything may go but the best one's result.
        if running >= limit_bytes:
            reached.append((1.0, "disk_gb"))
        elif num_trials > at_once and running + probed.result_bytes >= limit_bytes:
            reached.append((at_once + 1.0, "disk_gb"))
    ended_by = None
    if reached:
        at, name = min(reached)
        number = max(1, int(at))
        when = f"at trial {number} at the earliest" if searched else f"at about trial {number}"
        ended_by = f"search.budget.{name} ends it {when}"
    trial_s, longest_trial_s = probed.start_s + work_s, longest_s if searched else None
    return Forecast(trial_s, longest_trial_s, search_s, gpu_hours, money, disk, num_trials, ended_by)


def _at_most(workers: WorkersSection, start_s: float, work_s: float, spec: RunSpec) -> Cost:
    """Of one trial with these workers: fewer than the recipe's share its work among them, and of more none is taken to
    make it faster, which a small model's may not."""
    share = max(1.0, spec.scaling.max_workers / workers.max_workers)
    return cost_of(start_s + work_s * share, workers, spec.cost)


def told_forecast(found: Forecast) -> str:
    """The forecast in a sentence."""
    each = f"a trial takes about {duration(found.trial_s)}"
    if found.longest_trial_s is not None:
        each += (
            " with the recipe's own workers and at most "
            f"{duration(found.longest_trial_s)} with those that are searched"
        )
    parts = [each, f"all at most {duration(found.search_s)}"]
    if found.gpu_hours:
        parts.append(f"{found.gpu_hours:.2g} GPU-hours")
    if found.cost:
        parts.append(f"a cost of {found.cost:.3g}")
    parts.append(f"{found.disk_bytes / GB:.2g} GB of disk")
    if found.ended_by:
        parts.append(found.ended_by)
    return "forecast: " + ", ".join(parts)

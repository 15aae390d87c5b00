"""What runs took and what that costs, from their records; and what one will, from those like it. Plain functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any

from raytrain.cluster.section import WorkersSection
from raytrain.runs.cost_section import CostSection
from raytrain.runs.record_types import EventRecord, RunRecord

_HOUR_S = 3600.0


MADE_OF_OTHERS = ("tune", "pipeline", "retrain")
"""Kinds of runs that take their workers through runs of their own, which are counted in their place."""


@dataclass(frozen=True)
class Cost:
    """`money` is None where the recipe has no price for what was taken; `hours` are of the clock."""

    hours: float
    cpu_hours: float
    gpu_hours: float
    money: float | None
    currency: str

    def told(self) -> str:
        used = _used(self.cpu_hours, self.gpu_hours)
        return used if self.money is None else f"{self.money:.2f} {self.currency} ({used})"


def _used(cpu_hours: float, gpu_hours: float) -> str:
    return f"{cpu_hours:.2f} CPU hours" + (f", {gpu_hours:.2f} GPU hours" if gpu_hours else "")


def cost_of(seconds: float, workers: WorkersSection, prices: CostSection) -> Cost:
    """Of this many workers for this long; of an elastic run the most workers count, which is an upper bound."""
    hours, each = seconds / _HOUR_S, workers.worker_resources
    cpus, gpus = each["CPU"] * workers.max_workers, each.get("GPU", 0.0) * workers.max_workers
    return Cost(
        hours, hours * cpus, hours * gpus, _money(hours, cpus, gpus, workers, prices), prices.currency
    )


def _money(
    hours: float, cpus: float, gpus: float, workers: WorkersSection, prices: CostSection
) -> float | None:
    if prices.instance is not None:
        machines = math.ceil(workers.max_workers / prices.workers_per_instance)
        return hours * machines * prices.instances[prices.instance]
    gpu_hour = prices.gpu_hours.get(workers.accelerator_type or "", prices.gpu_hour)
    if (gpus and gpu_hour is None) or (prices.cpu_hour is None and gpu_hour is None):
        return None
    return hours * (cpus * (prices.cpu_hour or 0.0) + gpus * (gpu_hour or 0.0))


def active_seconds(run: RunRecord, events: Sequence[EventRecord], now: float) -> float:
    """How long it ran, all of its starts together; the waiting between them costs nothing."""
    total, since = 0.0, None
    for event in events:
        if event.kind != "state":
            continue
        if since is not None:
            total += max(0.0, event.time - since)
        since = event.time if event.data.get("state") == "running" else None
    if since is not None:  # it goes on, or its owner died without a word
        until = now if run.state == "running" else run.heartbeat_at or since
        total += max(0.0, until - since)
    return total


def sections_of(config: Mapping[str, Any]) -> tuple[WorkersSection, CostSection]:
    """As a run's record has them; a recipe from before `cost:` has no prices."""
    known = WorkersSection.model_fields
    scaling = {name: value for name, value in (config.get("scaling") or {}).items() if name in known}
    return WorkersSection.model_validate(scaling), CostSection.model_validate(config.get("cost") or {})


@dataclass(frozen=True)
class Line:
    """Runs that a person wants summed. `money` is by currency."""

    key: str
    num_runs: int
    cpu_hours: float
    gpu_hours: float
    money: dict[str, float]
    num_unpriced: int

    def told(self) -> str:
        used = _used(self.cpu_hours, self.gpu_hours)
        unpriced = [f"{self.num_unpriced} without a price"] if self.num_unpriced else []
        runs = f"{self.num_runs} run{'s' if self.num_runs > 1 else ''}"
        used = _used(self.cpu_hours, self.gpu_hours)
        return f"{', '.join([*amounts(self.money), *unpriced])} ({used} in {runs})"


def amounts(money: Mapping[str, float]) -> list[str]:
    """Sums by currency, as a person reads them."""
    return [f"{amount:.2f} {currency}" for currency, amount in sorted(money.items())]


def summed(costs: Iterable[tuple[RunRecord, Cost]], by: str) -> list[Line]:
    """`by` is run, recipe or month (local time, of the start)."""
    groups: dict[str, list[Cost]] = {}
    for run, cost in costs:
        groups.setdefault(_key(run, by), []).append(cost)
    return [total(key, many) for key, many in sorted(groups.items())]


def _key(run: RunRecord, by: str) -> str:
    if by == "month":
        return datetime.fromtimestamp(run.started_at or run.created_at).strftime("%Y-%m")
    return run.name if by == "recipe" else run.id


def total(key: str, costs: Sequence[Cost]) -> Line:
    """All of them as one line."""
    money: dict[str, float] = {}
    for cost in costs:
        if cost.money is not None:
            money[cost.currency] = money.get(cost.currency, 0.0) + cost.money
    return Line(
        key,
        len(costs),
        sum(cost.cpu_hours for cost in costs),
        sum(cost.gpu_hours for cost in costs),
        money,
        sum(cost.money is None for cost in costs),
    )


@dataclass(frozen=True)
class Measured:
    """What an earlier run of the same recipe tells."""

    run_id: str
    config: Mapping[str, Any]
    step_s: Sequence[float]
    """Seconds a step, one value a record."""
    beside_steps_s: float
    """Start, end and checkpoints: what it took beyond its steps."""
    num_rows: int | None
    """Of its training split; None where its dataset is gone."""


@dataclass(frozen=True)
class Estimate:
    num_steps: int
    seconds: float
    cost: Cost
    from_run: str
    num_runs: int = 1

    def told(self) -> str:
        runs = f" in {self.num_runs} runs at most" if self.num_runs > 1 else ""
        steps = f"{self.num_steps} steps{runs}, {self.seconds / 60:.0f} min"
        return f"{self.cost.told()}: {steps}, as fast as {self.from_run}"

    def times(self, num_runs: int) -> Estimate:
        """Of so many such runs one after another."""
        cost = self.cost
        money = None if cost.money is None else cost.money * num_runs
        many = replace(
            cost,
            hours=cost.hours * num_runs,
            cpu_hours=cost.cpu_hours * num_runs,
            gpu_hours=cost.gpu_hours * num_runs,
            money=money,
        )
        return replace(
            self,
            num_steps=self.num_steps * num_runs,
            seconds=self.seconds * num_runs,
            cost=many,
            num_runs=num_runs,
        )


def estimate(
    config: Mapping[str, Any], steps_of: Callable[[int], int], measured: Sequence[Measured]
) -> Estimate | None:
    """As fast as the newest run like it; None where there is none, or where nothing says how many steps it will be.

    `steps_of` a number of rows: how many optimizer steps the recipe makes of them.
    """
    workers, prices = sections_of(config)
    num_steps = config["train"].get("max_steps") or next(
        (
            steps_of(one.num_rows)
            for one in measured
            if one.num_rows and one.config.get("data") == config.get("data")
        ),
        None,
    )
    alike = next((one for one in measured if one.step_s and _alike(config, one.config)), None)
    if num_steps is None or alike is None:
        return None
    rows = config["train"]["global_batch_size"] / alike.config["train"]["global_batch_size"]
    sizes = sections_of(alike.config)[0].max_workers / workers.max_workers
    seconds = num_steps * median(alike.step_s) * rows * sizes + alike.beside_steps_s
    return Estimate(num_steps, seconds, cost_of(seconds, workers, prices), alike.run_id)


def _alike(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """The same model and length of rows on the same kind of worker: a step of one row takes about as long."""
    return all(
        _at(config, path) == _at(other, path)
        for path in ("model.base_model", "data.max_seq_len", "train.precision", "scaling.use_gpu",
                     "scaling.accelerator_type", "scaling.cpus_per_worker")
    )  # fmt: skip


def _at(config: Mapping[str, Any], path: str) -> Any:
    found: Any = config
    for part in path.split("."):
        found = (found or {}).get(part)
    return found

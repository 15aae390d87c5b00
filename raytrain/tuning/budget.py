"""What a search may cost, and whether it has: decided from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raytrain.runs.cost import Cost
from raytrain.tuning.section import BudgetSection

GB = 1e9


@dataclass(frozen=True)
class Spent:
    """What a search has taken so far, over all its commands."""

    search_s: float
    trials: Sequence[Cost]
    """Of each trial and of the probe, by the workers that it has."""
    disk_bytes: int


@dataclass(frozen=True)
class Kept:
    """What one ended trial has on the disk."""

    number: int
    is_best: bool
    rank: int
    """0 = the best objective; trials without one come last."""
    checkpoint_bytes: int
    result_bytes: int


def exhausted(budget: BudgetSection, spent: Spent) -> str | None:
    """The limit that is reached, in words; None where there is some of everything left."""
    gpu_hours = sum(one.gpu_hours for one in spent.trials)
    money = sum(one.money or 0.0 for one in spent.trials)
    if budget.hours is not None and spent.search_s >= 3600 * budget.hours:
        return f"search.budget.hours: {spent.search_s / 3600:.3g} of {budget.hours:g} hours are over"
    if budget.gpu_hours is not None and gpu_hours >= budget.gpu_hours:
        return f"search.budget.gpu_hours: {gpu_hours:.3g} of {budget.gpu_hours:g} are used"
    if budget.cost is not None and money >= budget.cost:
        return f"search.budget.cost: {money:.4g} of {budget.cost:g} {spent.trials[0].currency} is spent"
    if budget.disk_gb is not None and spent.disk_bytes >= budget.disk_gb * GB:
        return (
            f"search.budget.disk_gb: {spent.disk_bytes / GB:.3g} of {budget.disk_gb:g} GB are used, "
            "and nothing but the best is left to drop"
        )
    return None


@dataclass(frozen=True)
class Drop:
    """Something of an ended trial that may go."""

    number: int
    what: str
    """checkpoints or result"""
    num_bytes: int


def choose_to_drop(kept: Sequence[Kept], used_bytes: int, limit_bytes: float | None) -> list[Drop]:
    """What goes so that the disk's limit holds: checkpoints before results, the worst trials first, never the best
    trial's result."""
    if limit_bytes is None:
        return []
    drops: list[Drop] = []
    worst_first = sorted(kept, key=lambda one: (-one.rank, one.number))
    candidates = [Drop(one.number, "checkpoints", one.checkpoint_bytes) for one in worst_first]
    candidates += [Drop(one.number, "result", one.result_bytes) for one in worst_first if not one.is_best]
    for one in candidates:
        if used_bytes < limit_bytes:
            break
        if one.num_bytes:
            drops.append(one)
            used_bytes -= one.num_bytes
    return drops

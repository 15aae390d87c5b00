"""What all runs together have taken in a calendar month (UTC)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from raytrain.runs.cost import MADE_OF_OTHERS, active_seconds, cost_of, sections_of
from raytrain.runs.record_types import EventRecord, RunRecord
from raytrain.runs.records import Records

_LONGEST_RUN_S = 60 * 86400.0
"""Runs that were made longer before the month are not looked at."""


@dataclass(frozen=True)
class Spending:
    """money: by currency; num_unpriced: runs whose recipe has no price."""

    gpu_hours: float = 0.0
    money: dict[str, float] = field(default_factory=dict)
    num_unpriced: int = 0

    def unseen(self, currency: str) -> str | None:
        """What a limit in this currency does not see, in words; None where it sees all."""
        told = [f"{self.num_unpriced} runs of this month have no price"] if self.num_unpriced else []
        told += [
            f"{used:.2f} {one} are not counted"
            for one, used in self.money.items()
            if one != currency and used
        ]
        return "; ".join(told) or None


def month_of(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m")


def start_of_month(now: float) -> float:
    return (
        datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    )


def spent_in_month(records: Records, now: float) -> Spending:
    """Of the month that `now` lies in, up to now. A search, pipeline or retraining takes its workers through runs of
    its own, which count in its place."""
    since = start_of_month(now)
    page = records.list_runs(since=since - _LONGEST_RUN_S, limit=1_000_000)
    took_part = [
        run
        for run in page.runs
        if run.started_at is not None
        and run.kind not in MADE_OF_OTHERS
        and (run.ended_at is None or run.ended_at >= since)
    ]
    return summed((run, seconds_since(run, records.events(run.id), since, now)) for run in took_part)


def seconds_since(run: RunRecord, events: Sequence[EventRecord], since: float, now: float) -> float:
    """How long it ran after `since`."""
    return active_seconds(run, [replace(one, time=max(one.time, since)) for one in events], now)


def summed(runs: Iterable[tuple[RunRecord, float]]) -> Spending:
    """Of runs with the seconds of each."""
    gpu_hours, money, num_unpriced = 0.0, dict[str, float](), 0
    for run, seconds in runs:
        cost = cost_of(seconds, *sections_of(run.config))
        gpu_hours += cost.gpu_hours
        if cost.money is None:
            num_unpriced += 1
        else:
            money[cost.currency] = money.get(cost.currency, 0.0) + cost.money
    return Spending(gpu_hours, money, num_unpriced)

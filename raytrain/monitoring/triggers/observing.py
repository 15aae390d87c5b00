"""What a decision sees: the windows of a watch, rows that wait, production's age, what rows come from, and what the
month has cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.spending import spent_in_month
from raytrain.monitoring.triggers.origins import origins_of
from raytrain.monitoring.triggers.production import when_trained
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Seen, Window
from raytrain.runs.record_types import MetricPoint
from raytrain.runs.records import Records

WATCH_KIND = "watch"
"""Of a watch's runs: one a reference, named like the watch; their steps are windows."""
_PAGE = 200


def look(section: TriggersSection, records: Records, now: float, beside: Seen) -> Seen:
    """beside: what somebody says, which is believed. What no rule asks about is not looked for."""
    seen, asked = beside, {one.name for one in section.when.leaves()}
    if section.watch is not None:
        seen = with_windows(seen, section.watch, records)
    if seen.new_rows is None and "new_rows" in asked:
        pool = InteractionPool(records.engine)
        free = pool.counts()["free"] if section.release is None else pool.num_free(section.release)
        seen = replace(seen, new_rows=free)
    if seen.trained_at is None and "age" in asked and section.release is not None:
        trained = when_trained(section.release, section.registry, records)
        seen = replace(seen, trained_at=trained.at, notes=_with(seen.notes, trained.note))
    if seen.sources is None and "new_source" in asked and section.recipe is not None:
        origins = origins_of(Path(section.recipe))
        seen = replace(seen, sources=origins.names, notes=_with(seen.notes, origins.note))
    if section.budget is not None:
        spending = spent_in_month(records, now)
        unseen = None if section.budget.money is None else spending.unseen(section.budget.currency)
        note = (
            None
            if unseen is None
            else f"the month's {section.budget.currency}: {unseen} (raytrain runs cost)"
        )
        seen = replace(seen, spending=spending, notes=_with(seen.notes, note))
    return seen


def _with(notes: tuple[str, ...], note: str | None) -> tuple[str, ...]:
    return notes if note is None else (*notes, note)


def with_windows(seen: Seen, watch: str, records: Records) -> Seen:
    """Of the watch's newest reference; none where it has judged nothing yet."""
    run_id = series_of(watch, records)
    if run_id is None:
        return seen
    return replace(seen, series=run_id, windows=windows_of(records.metrics(run_id)))


def series_of(watch: str, records: Records) -> str | None:
    """The newest run of a watch; None where it has none."""
    start = 0
    while True:
        page = records.list_runs(kind=WATCH_KIND, name=watch, limit=_PAGE, offset=start)
        for run in page.runs:
            if run.name == watch:  # `name` may be a part
                return run.id
        start += _PAGE
        if start >= page.total:
            return None


def windows_of(metrics: dict[str, list[MetricPoint]]) -> tuple[Window, ...]:
    """In order. Pure."""
    values: dict[int, dict[str, float]] = {}
    times: dict[int, float] = {}
    for key, points in metrics.items():
        for number, value, time in points:
            values.setdefault(number, {})[key] = value
            times[number] = max(time, times.get(number, time))
    return tuple(Window(number, times[number], values[number]) for number in sorted(values))


def metric_names(watch: str | None, records: Records) -> set[str] | None:
    """What a watch records; None where it has recorded nothing yet, so that nobody can say."""
    run_id = None if watch is None else series_of(watch, records)
    return None if run_id is None else set(records.latest_metrics(run_id)) or None


def one_after_another(windows: Iterable[Window]) -> list[tuple[Window, ...]]:
    """As they came in: first one, then two, and so on."""
    found = list(windows)
    return [tuple(found[: end + 1]) for end in range(len(found))]

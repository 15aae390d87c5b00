"""Metrics as time series in the records database: one value a key and step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy
from sqlalchemy import and_, func, select

from raytrain.runs import tables
from raytrain.runs.record_types import MetricPoint, MetricRow

_ROWS_PER_INSERT = 5_000
_COLUMNS = tables.metrics.c


def add(
    connection: sqlalchemy.Connection,
    run_id: str,
    rows: Iterable[MetricRow | tuple[int, float, Mapping[str, float]]],
) -> None:
    """A value for a step that has one replaces it."""
    insert = tables.insert_into(tables.metrics, connection)
    upsert = insert.on_conflict_do_update(
        index_elements=["run_id", "key", "global_step"],
        set_={"value": insert.excluded.value, "time": insert.excluded.time},
    )
    values = [
        {
            "run_id": run_id,
            "key": key,
            "global_step": int(step),
            "value": _storable(value),
            "time": float(time),
        }
        for step, time, metrics in rows
        for key, value in metrics.items()
    ]
    for start in range(0, len(values), _ROWS_PER_INSERT):
        connection.execute(upsert, values[start : start + _ROWS_PER_INSERT])


def _storable(value: float) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number


def forget_after(connection: sqlalchemy.Connection, run_id: str, global_step: int) -> None:
    later = and_(_COLUMNS.run_id == run_id, _COLUMNS.global_step > global_step)
    connection.execute(tables.metrics.delete().where(later))


def read(
    connection: sqlalchemy.Connection, run_id: str, keys: Sequence[str] | None, since_step: int | None
) -> dict[str, list[MetricPoint]]:
    query = _points().where(_COLUMNS.run_id == run_id)
    if keys is not None:
        query = query.where(_COLUMNS.key.in_(keys))
    if since_step is not None:
        query = query.where(_COLUMNS.global_step >= since_step)
    series: dict[str, list[MetricPoint]] = {}
    for row in connection.execute(query.order_by(_COLUMNS.key, _COLUMNS.global_step)):
        series.setdefault(row.key, []).append(_point(row))
    return series


def latest(connection: sqlalchemy.Connection, run_id: str) -> dict[str, MetricPoint]:
    last = (
        select(_COLUMNS.key, func.max(_COLUMNS.global_step).label("step"))
        .where(_COLUMNS.run_id == run_id)
        .group_by(_COLUMNS.key)
        .subquery()
    )
    is_last = and_(_COLUMNS.key == last.c.key, _COLUMNS.global_step == last.c.step)
    query = _points().join(last, is_last).where(_COLUMNS.run_id == run_id).order_by(_COLUMNS.key)
    return {row.key: _point(row) for row in connection.execute(query)}


def last(connection: sqlalchemy.Connection, run_id: str, key: str) -> MetricPoint | None:
    newest_first = (
        _points().where(_COLUMNS.run_id == run_id, _COLUMNS.key == key).order_by(_COLUMNS.global_step.desc())
    )
    row = connection.execute(newest_first.limit(1)).first()
    return None if row is None else _point(row)


def _points() -> sqlalchemy.Select[str, int, float | None, float]:
    return select(_COLUMNS.key, _COLUMNS.global_step, _COLUMNS.value, _COLUMNS.time)


def _point(row: sqlalchemy.Row[str, int, float | None, float]) -> MetricPoint:
    return MetricPoint(row.global_step, math.nan if row.value is None else row.value, row.time)

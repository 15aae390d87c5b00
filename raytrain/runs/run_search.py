"""Finding runs: by filters, a page at a time, and by the beginning of an id."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy
from sqlalchemy import func, or_, select

from raytrain.errors import ConfigError
from raytrain.runs import tables
from raytrain.runs.record_types import RunPage, RunRecord, RunState
from raytrain.runs.run_rows import record_of, unknown_run

LATEST = "latest"
_COLUMNS = tables.runs.c
_NEWEST_FIRST = (_COLUMNS.created_at.desc(), _COLUMNS.id.desc())

Condition = sqlalchemy.ColumnElement[bool]


def in_state(state: RunState, without_owner: Sequence[str]) -> Condition:
    """`without_owner` are stored as running and count as failed, because nobody was left to write it down."""
    gone = _COLUMNS.id.in_(without_owner)
    stored = _COLUMNS.state == state
    return or_(stored, gone) if state == "failed" else stored & ~gone


def fits(kind: str | None, name: str | None, since: float | None) -> list[Condition]:
    """`name` may be a part; `since` is a time of creation."""
    wanted: list[Condition] = []
    if kind is not None:
        wanted.append(_COLUMNS.kind == kind)
    if name is not None:
        wanted.append(_COLUMNS.name.icontains(name, autoescape=True))
    if since is not None:
        wanted.append(_COLUMNS.created_at >= since)
    return wanted


def page(connection: sqlalchemy.Connection, wanted: Sequence[Condition], limit: int, offset: int) -> RunPage:
    """Runs as they are stored, newest first."""
    total = connection.execute(select(func.count()).select_from(tables.runs).where(*wanted)).scalar() or 0
    found = select(tables.runs).where(*wanted).order_by(*_NEWEST_FIRST).limit(limit).offset(offset)
    return RunPage([record_of(row) for row in connection.execute(found).mappings()], total)


def stored_as_running(connection: sqlalchemy.Connection) -> list[RunRecord]:
    query = select(tables.runs).where(_COLUMNS.state == "running")
    return [record_of(row) for row in connection.execute(query).mappings()]


def id_with_prefix(connection: sqlalchemy.Connection, prefix: str) -> str:
    """Raises ConfigError: it lists the candidates where several begin so, the nearest where none does."""
    if prefix == LATEST:
        return _latest_id(connection)
    if connection.execute(select(_COLUMNS.id).where(_COLUMNS.id == prefix)).scalar() is not None:
        return prefix
    begins_so = _COLUMNS.id.startswith(prefix, autoescape=True)
    query = select(_COLUMNS.id).where(begins_so).order_by(_COLUMNS.created_at.desc()).limit(11)
    # SQLite's LIKE does not tell upper from lower case; ids do.
    found: list[str] = [id_ for id_ in connection.execute(query).scalars() if id_.startswith(prefix)]
    if not found:
        raise unknown_run(connection, prefix)
    if len(found) > 1:
        listed = ", ".join(found[:10]) + (", …" if len(found) > 10 else "")
        raise ConfigError(
            f"`{prefix}` fits several runs", why=f"newest first: {listed}", fix="give more of the id"
        )
    return found[0]


def _latest_id(connection: sqlalchemy.Connection) -> str:
    latest: str | None = connection.execute(select(_COLUMNS.id).order_by(*_NEWEST_FIRST).limit(1)).scalar()
    if latest is None:
        raise ConfigError(
            "there is no latest run", why="no run is recorded", fix="start one with `raytrain train`"
        )
    return latest

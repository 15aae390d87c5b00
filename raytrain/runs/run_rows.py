"""Rows of the runs table as records: one run in, changed, and out again by its id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy
from sqlalchemy import and_, select

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError
from raytrain.runs import tables
from raytrain.runs.ownership import Owner
from raytrain.runs.record_types import RunRecord

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_COLUMNS = tables.runs.c


def check_id(run_id: str) -> None:
    if not _RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"{run_id!r} cannot name a run",
            why="a run's id is also the name of its folder",
            fix="use letters, digits, `.`, `_` and `-`, at most 200, the first a letter or a digit",
        )


def add(connection: sqlalchemy.Connection, run: RunRecord) -> None:
    connection.execute(tables.runs.insert().values(_values_of(run)))


def add_unless_known(connection: sqlalchemy.Connection, run: RunRecord) -> None:
    insert = tables.insert_into(tables.runs, connection)
    connection.execute(insert.values(_values_of(run)).on_conflict_do_nothing())


def _values_of(run: RunRecord) -> dict[str, Any]:
    values = {name: value for name, value in asdict(run).items() if name in _COLUMNS}
    if run.owner is not None:
        values |= {f"owner_{name}": value for name, value in asdict(run.owner).items()}
    return {**values, "num_claims": 0}


def change(connection: sqlalchemy.Connection, run_id: str, values: Mapping[str, Any]) -> bool:
    """False where there is no such run."""
    update = tables.runs.update().where(_COLUMNS.id == run_id)
    return connection.execute(update.values(dict(values))).rowcount == 1


def raise_global_step(connection: sqlalchemy.Connection, run_id: str, global_step: int) -> None:
    behind = and_(_COLUMNS.id == run_id, _COLUMNS.global_step < global_step)
    connection.execute(tables.runs.update().where(behind).values(global_step=global_step))


def read(connection: sqlalchemy.Connection, run_id: str) -> Mapping[str, Any]:
    """Every column of one run; ConfigError where it is not there."""
    row = connection.execute(select(tables.runs).where(_COLUMNS.id == run_id)).mappings().one_or_none()
    if row is None:
        raise unknown_run(connection, run_id)
    return dict(row)


def record_of(row: Mapping[Any, Any]) -> RunRecord:
    """The run as it is stored, whether or not its owner still lives."""
    values = {name: row[name] for name in RunRecord.__dataclass_fields__ if name in row}
    owner = None
    if row["owner_host"] is not None:
        owner = Owner(row["owner_host"], row["owner_pid"], row["owner_process_started_at"])
    return RunRecord(**values, owner=owner)


def unknown_run(connection: sqlalchemy.Connection, name: str) -> ConfigError:
    newest = select(_COLUMNS.id).order_by(_COLUMNS.created_at.desc()).limit(1000)
    known = list(connection.execute(newest).scalars())
    near = nearest(name, known)
    return ConfigError(
        f"there is no run `{name}`",
        why=f"{len(known)} runs are recorded, none with this id or one that begins so"
        if known
        else "no run is recorded in this database",
        fix=f"did you mean `{near}`?" if near else "`raytrain runs list` shows all ids",
    )

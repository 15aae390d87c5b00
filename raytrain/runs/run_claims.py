"""The hold of one process on a run: claims, heartbeats and the request to stop, in the runs table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy
from sqlalchemy import and_, select

from raytrain.errors import TrainingError
from raytrain.runs import run_rows, tables
from raytrain.runs.owner_watch import OwnerWatch
from raytrain.runs.ownership import Owner
from raytrain.runs.record_types import RunRecord

_MAX_ATTEMPTS = 20
_COLUMNS = tables.runs.c

Begin = Callable[[], AbstractContextManager[sqlalchemy.Connection]]
"""Opens a transaction."""


class AlreadyRunningError(TrainingError):
    """Another process that lives holds the run. Exit code 4."""


def claim(begin: Begin, owners: OwnerWatch, run_id: str, owner: Owner, now: float) -> RunRecord:
    """Make `owner` hold the run; returns the run as it stood before. Of several that try at once, one wins.

    Raises AlreadyRunningError where another process that lives holds it.
    """
    for _ in range(_MAX_ATTEMPTS):
        with begin() as connection:
            seen = run_rows.read(connection, run_id)
        run = run_rows.record_of(seen)
        if run.state == "running" and run.owner and run.owner != owner and owners.is_alive(run, now):
            raise _already_running(run, run.owner)
        with begin() as connection:
            if _claim_over(connection, seen, owner, now):
                return run
    raise TrainingError(
        f"run {run_id} could not be claimed",
        why=f"other processes took it {_MAX_ATTEMPTS} times in a row",
        fix="find out what starts it again and again, then run the command once more",
    )


def _claim_over(connection: sqlalchemy.Connection, seen: Mapping[str, Any], owner: Owner, now: float) -> bool:
    """Claim the run if its row is still as `seen`; False where another process claimed it since."""
    unchanged = and_(_COLUMNS.id == seen["id"], _COLUMNS.num_claims == seen["num_claims"])
    claimed = {
        "state": "running",
        "num_claims": seen["num_claims"] + 1,
        "owner_host": owner.host,
        "owner_pid": owner.pid,
        "owner_process_started_at": owner.process_started_at,
        "heartbeat_at": now,
        "started_at": seen["started_at"] or now,
        "ended_at": None,
        "exit_reason": None,
        "error": None,
        "stop_requested": False,
    }
    return connection.execute(tables.runs.update().where(unchanged).values(claimed)).rowcount == 1


def beat(
    connection: sqlalchemy.Connection,
    run_id: str,
    owner: Owner,
    now: float,
    global_step: int | None,
    max_steps: int | None,
) -> bool:
    """False where `owner` does not hold the run (any more)."""
    values: dict[str, Any] = {"heartbeat_at": now}
    if global_step is not None:
        values["global_step"] = global_step
    if max_steps is not None:
        values["max_steps"] = max_steps
    held = and_(
        _COLUMNS.id == run_id,
        _COLUMNS.owner_host == owner.host,
        _COLUMNS.owner_pid == owner.pid,
        _COLUMNS.owner_process_started_at == owner.process_started_at,
    )
    return connection.execute(tables.runs.update().where(held).values(values)).rowcount == 1


def ask_to_stop(connection: sqlalchemy.Connection, run_id: str) -> bool:
    """False where the run is not going on."""
    going_on = and_(_COLUMNS.id == run_id, _COLUMNS.state == "running")
    return connection.execute(tables.runs.update().where(going_on).values(stop_requested=True)).rowcount == 1


def was_asked_to_stop(connection: sqlalchemy.Connection, run_id: str) -> bool:
    return bool(connection.execute(select(_COLUMNS.stop_requested).where(_COLUMNS.id == run_id)).scalar())


def _already_running(run: RunRecord, owner: Owner) -> AlreadyRunningError:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started_at))
    return AlreadyRunningError(
        f"run {run.id} is already running",
        why=f"process {owner.pid} on {owner.host} holds it since {since} (at step {run.global_step})",
        fix=f"watch it: `raytrain runs logs {run.id} --follow`; end it: `raytrain runs stop {run.id}`",
    )

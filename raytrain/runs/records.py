"""The records of all runs: one object over the database that commands and the trainer share.

The run folders and manifests hold the same facts (`folder.py`), so the database can be lost and rebuilt.
"""

from __future__ import annotations

import re
import socket
import time as clock
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy
from sqlalchemy import and_, func, or_, select

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError, TrainingError
from raytrain.runs import artifact_index, folder, series, tables
from raytrain.runs.ownership import Owner, StartTimeOf, owner_is_alive, process_start_time
from raytrain.runs.record_types import (
    OWNER_GONE,
    RUN_STATES,
    ArtifactRecord,
    ArtifactUse,
    Direction,
    EventRecord,
    LineageNode,
    MetricPoint,
    MetricRow,
    RunPage,
    RunRecord,
    RunState,
)
from raytrain.storage.artifact import digest_of, short_digest
from raytrain.storage.database import DamagedDatabaseError, open_database, translated_database_errors
from raytrain.storage.home import run_folder

LATEST = "latest"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ENDED: tuple[RunState, ...] = ("succeeded", "failed", "cancelled")
_MAX_CLAIM_ATTEMPTS = 20


def open_records(url: str | None = None) -> Records:
    """Open the database, making its tables where it has none.

    Raises StorageError where it cannot be opened or has another schema; DamagedDatabaseError where damaged.
    """
    engine = open_database(url)
    with translated_database_errors(engine):
        try:
            tables.ensure_schema(engine)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            # Another process made the tables at the same moment; now they are there.
            tables.ensure_schema(engine)
    return Records(engine)


class Records:
    """Safe to share between threads. Every method raises StorageError where the database cannot be used, and
    ConfigError where it is given a run that does not exist."""

    def __init__(
        self,
        engine: sqlalchemy.Engine,
        *,
        this_host: str | None = None,
        start_time_of: StartTimeOf = process_start_time,
    ) -> None:
        self.engine = engine
        self._this_host = this_host or socket.gethostname()
        self._start_time_of = start_time_of

    def close(self) -> None:
        self.engine.dispose()

    def check_whole(self) -> None:
        """Raises DamagedDatabaseError where pages of a SQLite file do not agree with each other."""
        if self.engine.dialect.name != "sqlite":
            return
        with self._begin() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise DamagedDatabaseError(
                f"the records database {self.engine.url.database} is damaged",
                why=str(found),
                fix="run `raytrain runs rebuild`",
            )

    @contextmanager
    def _begin(self) -> Iterator[sqlalchemy.Connection]:
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            yield connection

    # The life of a run

    def create_run(
        self,
        run_id: str,
        *,
        kind: str,
        name: str,
        config: dict[str, Any],
        config_digest: str | None = None,
        storage_uri: str | None = None,
        max_steps: int | None = None,
        created_at: float | None = None,
    ) -> RunRecord:
        """Record a queued run and make its folder; one that is there already is returned as it is."""
        if not _RUN_ID.fullmatch(run_id):
            raise ConfigError(
                f"{run_id!r} cannot name a run",
                why="a run's id is also the name of its folder",
                fix="use letters, digits, `.`, `_` and `-`, at most 200, the first a letter or a digit",
            )
        values = {
            "id": run_id,
            "kind": kind,
            "name": name,
            "state": "queued",
            "config": config,
            "config_digest": config_digest or digest_of(config),
            "storage_uri": storage_uri,
            "max_steps": max_steps,
            "created_at": clock.time() if created_at is None else created_at,
            "num_claims": 0,
            "global_step": 0,
            "stop_requested": False,
        }
        with self._begin() as connection:
            connection.execute(
                tables.insert_into(tables.runs, connection).values(values).on_conflict_do_nothing()
            )
        run = self.get_run(run_id)
        folder.describe_run(run)
        return run

    def claim_run(self, run_id: str, owner: Owner, now: float | None = None) -> RunRecord:
        """Make `owner` the one process that carries the run; of several that try at once, one wins.

        Raises TrainingError where another process that lives holds it.
        """
        now = clock.time() if now is None else now
        for _ in range(_MAX_CLAIM_ATTEMPTS):
            row = self._row(run_id)
            run = _run_of(row)
            if run.state == "running" and run.owner and run.owner != owner and self._is_alive(run, now):
                raise _already_running(run, run.owner)
            seen = and_(tables.runs.c.id == run_id, tables.runs.c.num_claims == row["num_claims"])
            claimed = {
                "state": "running",
                "num_claims": row["num_claims"] + 1,
                "owner_host": owner.host,
                "owner_pid": owner.pid,
                "owner_process_started_at": owner.process_started_at,
                "heartbeat_at": now,
                "started_at": run.started_at or now,
                "ended_at": None,
                "exit_reason": None,
                "error": None,
                "stop_requested": False,
            }
            with self._begin() as connection:
                won = connection.execute(tables.runs.update().where(seen).values(claimed)).rowcount == 1
            if won:
                folder.describe_run(run)
                place = f"process {owner.pid} on {owner.host}"
                again = f" again, from step {run.global_step}" if run.started_at else ""
                data = {"owner": asdict(owner)}
                self._add_state_event(run_id, "running", f"started{again} by {place}", data, now)
                return self.get_run(run_id)
        raise TrainingError(
            f"run {run_id} could not be claimed",
            why=f"other processes took it {_MAX_CLAIM_ATTEMPTS} times in a row",
            fix="find out what starts it again and again, then run the command once more",
        )

    def _is_alive(self, run: RunRecord, now: float) -> bool:
        return run.owner is not None and owner_is_alive(
            run.owner, run.heartbeat_at, now, self._this_host, self._start_time_of
        )

    def heartbeat(
        self,
        run_id: str,
        owner: Owner,
        *,
        global_step: int | None = None,
        max_steps: int | None = None,
        now: float | None = None,
    ) -> bool:
        """Say every 10 s or so that `owner` lives, and how far it is. False: another took the run over."""
        values: dict[str, Any] = {"heartbeat_at": clock.time() if now is None else now}
        if global_step is not None:
            values["global_step"] = global_step
        if max_steps is not None:
            values["max_steps"] = max_steps
        with self._begin() as connection:
            update = tables.runs.update().where(tables.runs.c.id == run_id, _owned_by(owner)).values(values)
            return connection.execute(update).rowcount == 1

    def set_state(
        self,
        run_id: str,
        state: RunState,
        exit_reason: str | None = None,
        error: dict[str, Any] | None = None,
        *,
        global_step: int | None = None,
        now: float | None = None,
    ) -> None:
        """`error` is `PlatformError.as_dict()`. An ended run is held by nobody."""
        now = clock.time() if now is None else now
        ended = state in _ENDED
        values = {
            "state": state,
            "exit_reason": exit_reason,
            "error": error,
            "ended_at": now if ended else None,
        }
        if global_step is not None:
            values["global_step"] = global_step
        with self._begin() as connection:
            update = tables.runs.update().where(tables.runs.c.id == run_id).values(values)
            found = connection.execute(update).rowcount == 1
        if not found:
            raise self._unknown_run(run_id)
        data = {"exit_reason": exit_reason, "error": error, "global_step": global_step}
        message = state if exit_reason is None else f"{state}: {exit_reason}"
        self._add_state_event(run_id, state, message, data, now)

    def _add_state_event(
        self, run_id: str, state: RunState, message: str, data: dict[str, Any], now: float
    ) -> None:
        self.add_event(run_id, "state", message, {"state": state, **data}, time=now)

    def request_stop(self, run_id: str) -> bool:
        """Ask a run to save and end; False where it is not going on, so that nothing is left to stop."""
        if self.get_run(run_id).state != "running":
            return False
        with self._begin() as connection:
            going_on = and_(tables.runs.c.id == run_id, tables.runs.c.state == "running")
            stopped = (
                connection.execute(tables.runs.update().where(going_on).values(stop_requested=True)).rowcount
                == 1
            )
        if stopped:
            self.add_event(run_id, "stop", "asked to save and stop")
        return stopped

    def stop_requested(self, run_id: str) -> bool:
        with self._begin() as connection:
            asked = connection.execute(
                select(tables.runs.c.stop_requested).where(tables.runs.c.id == run_id)
            ).scalar()
        return bool(asked)

    def restore_run(self, run: RunRecord, events: Sequence[EventRecord]) -> None:
        """Put a run as it stands into a database that does not know it; for rebuild."""
        columns = tables.runs.c.keys()
        values = {name: value for name, value in asdict(run).items() if name in columns}
        if run.owner is not None:
            values |= {f"owner_{name}": value for name, value in asdict(run.owner).items()}
        with self._begin() as connection:
            connection.execute(tables.runs.insert().values(**values, num_claims=0))
            if events:
                rows = [{"run_id": run.id, **asdict(event)} for event in events]
                connection.execute(tables.events.insert(), rows)

    def raise_global_step(self, run_id: str, global_step: int) -> None:
        """Only upwards; for rebuild, which learns the step from the metrics."""
        columns = tables.runs.c
        behind = and_(columns.id == run_id, columns.global_step < global_step)
        with self._begin() as connection:
            connection.execute(tables.runs.update().where(behind).values(global_step=global_step))

    # Finding runs

    def get_run(self, run_id: str) -> RunRecord:
        return self._as_it_stands(_run_of(self._row(run_id)), clock.time())

    def _as_it_stands(self, run: RunRecord, now: float) -> RunRecord:
        """A running run whose owner is dead has failed, although nobody was left to write it down."""
        if run.state != "running" or self._is_alive(run, now):
            return run
        return replace(
            run, state="failed", exit_reason=OWNER_GONE, owner_gone=True, ended_at=run.heartbeat_at
        )

    def list_runs(
        self,
        *,
        state: RunState | None = None,
        kind: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> RunPage:
        """Runs that fit all filters, newest first. `name` may be a part; `since` is a time of creation."""
        columns = tables.runs.c
        wanted = []
        if state is not None:
            gone = self._runs_without_owner()
            stored = and_(columns.state == state, columns.id.not_in(gone))
            wanted.append(or_(stored, columns.id.in_(gone)) if state == "failed" else stored)
        if kind is not None:
            wanted.append(columns.kind == kind)
        if name is not None:
            wanted.append(columns.name.icontains(name, autoescape=True))
        if since is not None:
            wanted.append(columns.created_at >= since)
        newest_first = (
            select(tables.runs).where(*wanted).order_by(columns.created_at.desc(), columns.id.desc())
        )
        with self._begin() as connection:
            total = (
                connection.execute(select(func.count()).select_from(tables.runs).where(*wanted)).scalar() or 0
            )
            rows = connection.execute(newest_first.limit(limit).offset(offset)).mappings().all()
        now = clock.time()
        return RunPage([self._as_it_stands(_run_of(row), now) for row in rows], total)

    def _runs_without_owner(self) -> list[str]:
        with self._begin() as connection:
            rows = (
                connection.execute(select(tables.runs).where(tables.runs.c.state == "running"))
                .mappings()
                .all()
            )
        now = clock.time()
        return [run.id for run in map(_run_of, rows) if not self._is_alive(run, now)]

    def run_with_prefix(self, prefix: str) -> RunRecord:
        """The run with this id, or the only one whose id begins so; `latest` is the newest.

        Raises ConfigError: it lists the candidates where several begin so, the nearest where none does.
        """
        if prefix == LATEST:
            newest = self.list_runs(limit=1).runs
            if newest:
                return newest[0]
            raise ConfigError(
                "there is no latest run", why="no run is recorded", fix="start one with `raytrain train`"
            )
        columns = tables.runs.c
        with self._begin() as connection:
            if connection.execute(select(columns.id).where(columns.id == prefix)).scalar() is not None:
                found = [prefix]
            else:
                begins_so = columns.id.startswith(prefix, autoescape=True)
                query = select(columns.id).where(begins_so).order_by(columns.created_at.desc()).limit(11)
                # SQLite's LIKE does not tell upper from lower case; ids do.
                found = [id_ for id_ in connection.execute(query).scalars() if id_.startswith(prefix)]
        if len(found) == 1:
            return self.get_run(found[0])
        if not found:
            raise self._unknown_run(prefix)
        listed = ", ".join(found[:10]) + (", …" if len(found) > 10 else "")
        raise ConfigError(
            f"`{prefix}` fits several runs", why=f"newest first: {listed}", fix="give more of the id"
        )

    def _unknown_run(self, name: str) -> ConfigError:
        newest = select(tables.runs.c.id).order_by(tables.runs.c.created_at.desc()).limit(1000)
        with self._begin() as connection:
            known = list(connection.execute(newest).scalars())
        near = nearest(name, known)
        return ConfigError(
            f"there is no run `{name}`",
            why=f"{len(known)} runs are recorded, none with this id or one that begins so"
            if known
            else "no run is recorded in this database",
            fix=f"did you mean `{near}`?" if near else "`raytrain runs list` shows all ids",
        )

    def _row(self, run_id: str) -> Mapping[str, Any]:
        with self._begin() as connection:
            row = (
                connection.execute(select(tables.runs).where(tables.runs.c.id == run_id))
                .mappings()
                .one_or_none()
            )
        if row is None:
            raise self._unknown_run(run_id)
        return dict(row)

    # Metrics

    def add_metrics(
        self, run_id: str, rows: Iterable[MetricRow | tuple[int, float, Mapping[str, float]]]
    ) -> None:
        """Store many values in one transaction; a value for a step that has one replaces it."""
        with self._begin() as connection:
            series.add(connection, run_id, rows)

    def forget_metrics_after(self, run_id: str, global_step: int) -> None:
        """A resumed run measures these steps again; its series keep one value a step."""
        with self._begin() as connection:
            series.forget_after(connection, run_id, global_step)

    def metrics(
        self, run_id: str, keys: Sequence[str] | None = None, since_step: int | None = None
    ) -> dict[str, list[MetricPoint]]:
        """Time series by key, in the order of steps; of the wanted keys, those that were measured."""
        with self._begin() as connection:
            return series.read(connection, run_id, keys, since_step)

    def latest_metrics(self, run_id: str) -> dict[str, MetricPoint]:
        """The value of the greatest step, by key."""
        with self._begin() as connection:
            return series.latest(connection, run_id)

    def last_value(self, run_id: str, key: str) -> MetricPoint | None:
        with self._begin() as connection:
            return series.last(connection, run_id, key)

    # Events

    def add_event(
        self,
        run_id: str,
        kind: str,
        message: str,
        data: dict[str, Any] | None = None,
        *,
        time: float | None = None,
    ) -> None:
        """Also appended to events.jsonl where the run's folder is on this machine."""
        event = {
            "time": clock.time() if time is None else time,
            "kind": kind,
            "message": message,
            "data": data or {},
        }
        with self._begin() as connection:
            connection.execute(tables.events.insert().values(run_id=run_id, **event))
        place = run_folder(run_id)
        if place.is_dir():
            folder.append_json_line(place / folder.EVENTS_FILE, event)

    def events(self, run_id: str) -> list[EventRecord]:
        columns = tables.events.c
        query = select(columns.time, columns.kind, columns.message, columns.data)
        with self._begin() as connection:
            found = connection.execute(query.where(columns.run_id == run_id).order_by(columns.id))
            return [EventRecord(*row) for row in found]

    # Artifacts

    def add_artifact(
        self,
        run_id: str,
        role: str,
        direction: Direction,
        kind: str,
        digest: str,
        uri: str | None,
        parents: Mapping[str, str] | None = None,
    ) -> None:
        """Record what a run read or wrote; `parents` (from the manifest) make up its lineage."""
        use = ArtifactUse(run_id, role, direction, kind, digest, uri, clock.time())
        if self.index_artifact(use, parents):
            message = f"{direction} {role}: {kind} {short_digest(digest)} at {uri}"
            self.add_event(run_id, "artifact", message, {**asdict(use), "parents": dict(parents or {})})

    def index_artifact(self, use: ArtifactUse, parents: Mapping[str, str] | None) -> bool:
        """Put a use and its artifact into the tables without an event; False where it was there already."""
        with self._begin() as connection:
            return artifact_index.add(connection, use, parents)

    def artifacts(self, run_id: str) -> list[ArtifactUse]:
        """What the run read and wrote, in order of time."""
        with self._begin() as connection:
            return artifact_index.uses_of_run(connection, run_id)

    def artifact_of(self, run_id: str, role: str = "model") -> str | None:
        """URI of the newest artifact that the run wrote in this role."""
        written = [use for use in self.artifacts(run_id) if use.direction == "written" and use.role == role]
        return written[-1].uri if written else None

    def find_artifact(self, digest: str) -> ArtifactRecord | None:
        """The artifact with this digest, or the only one that begins so (`sha256:` may be left out)."""
        with self._begin() as connection:
            return artifact_index.find(connection, digest)

    def lineage(self, digest: str) -> LineageNode:
        """What the artifact was made from, back to the first rows: a walk over parents."""
        with self._begin() as connection:
            return artifact_index.lineage(connection, digest)


def _run_of(row: Mapping[Any, Any]) -> RunRecord:
    values = {name: row[name] for name in RunRecord.__dataclass_fields__ if name in row}
    owner = None
    if row["owner_host"] is not None:
        owner = Owner(row["owner_host"], row["owner_pid"], row["owner_process_started_at"])
    return RunRecord(**values, owner=owner)


def _owned_by(owner: Owner) -> sqlalchemy.ColumnElement[bool]:
    columns = tables.runs.c
    return and_(
        columns.owner_host == owner.host,
        columns.owner_pid == owner.pid,
        columns.owner_process_started_at == owner.process_started_at,
    )


def _already_running(run: RunRecord, owner: Owner) -> TrainingError:
    since = clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(run.started_at))
    return TrainingError(
        f"run {run.id} is already running",
        why=f"process {owner.pid} on {owner.host} holds it since {since} (at step {run.global_step})",
        fix=f"watch it: `raytrain runs logs {run.id} --follow`; end it: `raytrain runs stop {run.id}`",
    )


def check_state(text: str) -> RunState:
    """`text` as a state; ConfigError with the nearest one where it is none."""
    for state in RUN_STATES:
        if state == text:
            return state
    near = nearest(text, RUN_STATES)
    raise ConfigError(
        f"`{text}` is no state of a run",
        why=f"a run is one of {', '.join(RUN_STATES)}",
        fix=f"did you mean `{near}`?" if near else "name one of these",
    )

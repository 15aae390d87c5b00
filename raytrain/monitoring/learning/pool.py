"""The interactions that may be learned from: each is kept for one run, and used by its success.

Whether a row was used is never written beside the run: it is used exactly when the run that it is kept for has
succeeded, so that both become true in one moment. A run that failed keeps its rows, as it may go on; `release` gives
them back unless they are written down: then others learn from them by what was written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import and_, func, select

from raytrain.errors import ConfigError, RefusedError
from raytrain.monitoring.learning.interaction import Message
from raytrain.runs import artifact_index
from raytrain.runs.tables import insert_into, interactions, runs
from raytrain.storage.database import exclusive, translated_database_errors

State = Literal["ready", "quarantined", "refused", "forgotten"]
"""quarantined = a person decides; refused = a person has decided."""
Source = Literal["answer", "correction"]

ROWS_KIND = "retraining_rows"
"""Of the artifact in which a run writes its rows down. Who learns from them later has them from there."""

_C = interactions.c


@dataclass(frozen=True)
class PooledRow:
    """`run_id`: the run that it is kept for, or was used by."""

    id: str
    at: float
    user: str | None
    model: str | None
    digest: str | None
    prompt: tuple[Message, ...] | None
    target: str | None
    """None, as the prompt, where it is forgotten."""
    source: Source
    score: float
    state: State
    reason: str | None = None
    run_id: str | None = None

    def as_chat(self) -> dict[str, Any]:
        """A row of a data source; its id is the row's."""
        assert self.prompt is not None, "not forgotten"
        return {
            "id": self.id,
            "messages": [*self.prompt, {"role": "assistant", "content": self.target}],
        }


class InteractionPool:
    """Safe to share between processes. Every method raises StorageError where the database cannot be used."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self.engine = engine

    def known(self, ids: Iterable[str]) -> set[str]:
        """Those that are in the pool, in whatever state."""
        return self._found(ids)

    def ready(self, ids: Iterable[str]) -> set[str]:
        """Those that may be learned from, whether a run has them or not."""
        return self._found(ids, _C.state == "ready")

    def kept(self, ids: Iterable[str]) -> set[str]:
        """Those that may be learned from, and that a run has."""
        return self._found(ids, _C.state == "ready", _C.run_id.is_not(None))

    def set_aside(self, ids: Iterable[str]) -> set[str]:
        """Those that look like poison, or are known to be."""
        return self._found(ids, _C.state.in_(("quarantined", "refused")))

    def _found(self, ids: Iterable[str], *wanted: sqlalchemy.ColumnElement[bool]) -> set[str]:
        asked, found = list(ids), set[str]()
        with translated_database_errors(self.engine), self.engine.connect() as connection:
            for begin in range(0, len(asked), 500):
                part = select(_C.id).where(_C.id.in_(asked[begin : begin + 500]), *wanted)
                found |= set(connection.execute(part).scalars())
        return found

    def add(self, rows: Sequence[PooledRow]) -> int:
        """How many were new; one that is there stays as it is, also where it is forgotten."""
        now, num_new = time.time(), 0
        with translated_database_errors(self.engine), exclusive(self.engine, "interactions") as connection:
            for row in rows:
                values = {
                    **vars(row), "prompt": None if row.prompt is None else list(row.prompt), "collected_at": now,
                }  # fmt: skip
                insert = insert_into(interactions, connection).values(values).on_conflict_do_nothing()
                # Asked for what was written: of several rows PostgreSQL's driver counts those that were there too.
                num_new += len(connection.execute(insert.returning(_C.id)).all())
        return num_new

    def take(self, run_id: str, most: int | None = None, name: str | None = None) -> list[PooledRow]:
        """Keep rows for a run, those that it has already among them: the oldest first, in the order of their ids.
        name: of answers of this released name alone.

        Raises ConfigError where there is no such run, RefusedError where it has succeeded and would learn twice.
        """
        with translated_database_errors(self.engine), exclusive(self.engine, "interactions") as connection:
            state = connection.execute(select(runs.c.state).where(runs.c.id == run_id)).scalar()
            _refuse_run(run_id, state)
            own = connection.execute(_query().where(_C.run_id == run_id)).all()
            left = None if most is None else max(0, most - len(own))
            free = select(_C.id).where(*_free(name)).order_by(_C.at, _C.id)
            ids = list(connection.execute(free if left is None else free.limit(left)).scalars())
            for begin in range(0, len(ids), 500):
                part = _C.id.in_(ids[begin : begin + 500])
                connection.execute(interactions.update().where(part).values(run_id=run_id))
            kept = connection.execute(
                _query().where(_C.run_id == run_id, _C.state == "ready").order_by(_C.at, _C.id)
            )
            return [_row(one) for one in kept]

    def release(self, run_id: str) -> int:
        """Give back the rows of a run that will not go on. Raises RefusedError where it has used them, or has written
        them down: an order that follows learns from that, and whose rows they were would be found no more."""
        with translated_database_errors(self.engine), exclusive(self.engine, "interactions") as connection:
            state = connection.execute(select(runs.c.state).where(runs.c.id == run_id)).scalar()
            if state == "succeeded":
                raise RefusedError(
                    f"the rows of run {run_id} cannot be given back",
                    why="it has succeeded: a model has learned from them",
                    fix="forget whose they are with `raytrain data forget`, if it is that",
                )
            if _is_written_down(connection, run_id):
                raise RefusedError(
                    f"the rows of run {run_id} cannot be given back",
                    why="it has written them down: the next order learns from them, if none has since",
                    fix="nothing: they are not lost; `raytrain interactions refuse` those that none may learn from",
                )
            done = connection.execute(interactions.update().where(_C.run_id == run_id).values(run_id=None))
            return int(done.rowcount)

    def judge(self, ids: Sequence[str], state: Literal["ready", "refused"], reason: str) -> int:
        """A person's word on rows, how many of which are not forgotten. One that a run has stays with it: who comes
        after learns from it no more, or again. Raises ConfigError for one that is not there."""
        missing = sorted(set(ids) - self.known(ids))
        if missing:
            raise ConfigError(
                f"there is no interaction {missing[0]}",
                why=f"{len(missing)} of {len(ids)} ids are unknown",
                fix="`raytrain interactions list --state quarantined` lists those that wait for a word",
            )
        with translated_database_errors(self.engine), exclusive(self.engine, "interactions") as connection:
            may = and_(_C.id.in_(ids), _C.state != "forgotten")
            done = connection.execute(interactions.update().where(may).values(state=state, reason=reason))
            return int(done.rowcount)

    def forget(self, user: str) -> list[PooledRow]:
        """Take a user's words out; what is left tells only that there was a row, and which run it was kept for."""
        with translated_database_errors(self.engine), exclusive(self.engine, "interactions") as connection:
            found = [_row(one) for one in connection.execute(_query().where(_C.user == user))]
            gone = {"prompt": None, "target": None, "state": "forgotten", "reason": "its user asked for it"}
            connection.execute(interactions.update().where(_C.user == user).values(gone))
        return found

    def rows(self, state: State | None = None, most: int | None = None) -> list[PooledRow]:
        """The newest first."""
        query = _query().order_by(_C.at.desc(), _C.id)
        query = query if state is None else query.where(_C.state == state)
        with translated_database_errors(self.engine), self.engine.connect() as connection:
            return [_row(one) for one in connection.execute(query.limit(most))]

    def num_free(self, name: str) -> int:
        """Rows of answers of a released name that no run has."""
        with translated_database_errors(self.engine), self.engine.connect() as connection:
            return int(connection.execute(select(func.count()).where(*_free(name))).scalar_one())

    def counts(self) -> Mapping[str, int]:
        """free, kept (for a run), used, quarantined, refused, forgotten."""
        with translated_database_errors(self.engine), self.engine.connect() as connection:
            state = sqlalchemy.case(
                (_C.state != "ready", _C.state),
                (_C.run_id.is_(None), "free"),
                (runs.c.state == "succeeded", "used"),
                else_="kept",
            )
            joined = interactions.outerjoin(runs, runs.c.id == _C.run_id)
            query = select(state, func.count()).select_from(joined).group_by(state)
            found = {str(name): int(count) for name, count in connection.execute(query).all()}
        names = ("free", "kept", "used", "quarantined", "refused", "forgotten")
        return {name: found.get(name, 0) for name in names}


def _refuse_run(run_id: str, state: str | None) -> None:
    if state is None:
        raise ConfigError(
            f"there is no run {run_id} to keep rows for",
            why="rows are kept for a run that is recorded, or nothing would tell whether they were used",
            fix="record the run first",
        )
    if state == "succeeded":
        raise RefusedError(
            f"run {run_id} takes no more rows",
            why="it has succeeded: what it learned from is settled",
            fix="start another run",
        )


def _is_written_down(connection: sqlalchemy.Connection, run_id: str) -> bool:
    uses = artifact_index.uses_of_run(connection, run_id)
    return any(one.kind == ROWS_KIND and one.direction == "written" for one in uses)


def _free(name: str | None) -> list[sqlalchemy.ColumnElement[bool]]:
    wanted = [_C.state == "ready", _C.run_id.is_(None)]
    if name is not None:
        wanted.append(sqlalchemy.or_(_C.model == name, _C.model.startswith(f"{name}@", autoescape=True)))
    return wanted


def _query() -> sqlalchemy.Select[Any]:
    return select(*(_C[name] for name in PooledRow.__dataclass_fields__))


def _row(found: Any) -> PooledRow:
    values = dict(zip(PooledRow.__dataclass_fields__, found, strict=True))
    prompt = values["prompt"]
    return PooledRow(**{**values, "prompt": None if prompt is None else tuple(prompt)})

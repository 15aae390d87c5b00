"""The lease of a scheduler: its row says every few seconds that it lives."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy
from sqlalchemy import select

from raytrain.runs import tables
from raytrain.runs.ownership import Owner, StartTimeOf, owner_is_alive, process_start_time
from raytrain.storage.database import translated_database_errors

_SCHEDULERS = tables.queue_schedulers


@dataclass(frozen=True)
class SchedulerRecord:
    id: str
    owner: Owner
    started_at: float
    heartbeat_at: float

    def is_alive(self, now: float, this_host: str, start_time_of: StartTimeOf = process_start_time) -> bool:
        return owner_is_alive(self.owner, self.heartbeat_at, now, this_host, start_time_of)


class SchedulerRows:
    """All schedulers of one database, dead ones that nobody forgot too."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine

    def beat(self, scheduler: str, owner: Owner, now: float) -> None:
        values = {"host": owner.host, "pid": owner.pid, "process_started_at": owner.process_started_at}
        with translated_database_errors(self._engine), self._engine.begin() as connection:
            insert = tables.insert_into(_SCHEDULERS, connection)
            insert = insert.values(id=scheduler, started_at=now, heartbeat_at=now, **values)
            connection.execute(
                insert.on_conflict_do_update(index_elements=["id"], set_={"heartbeat_at": now})
            )

    def forget(self, scheduler: str) -> None:
        with translated_database_errors(self._engine), self._engine.begin() as connection:
            connection.execute(_SCHEDULERS.delete().where(_SCHEDULERS.c.id == scheduler))

    def all(self) -> list[SchedulerRecord]:
        with translated_database_errors(self._engine), self._engine.begin() as connection:
            return [
                SchedulerRecord(
                    row["id"],
                    Owner(row["host"], row["pid"], row["process_started_at"]),
                    row["started_at"],
                    row["heartbeat_at"],
                )
                for row in connection.execute(select(_SCHEDULERS)).mappings()
            ]

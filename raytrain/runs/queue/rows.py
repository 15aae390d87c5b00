"""Jobs, queues and schedulers as rows of their tables, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy
from sqlalchemy import select

from raytrain.runs import tables
from raytrain.runs.ownership import Owner
from raytrain.runs.queue.job import Job, Limits, Need, Queue

JOBS, QUEUES = tables.queue_jobs, tables.queues
_PLAIN = [one.name for one in fields(Job) if one.name in JOBS.c and one.name != "owner"]


def values_of(job: Job) -> dict[str, Any]:
    values = {name: getattr(job, name) for name in _PLAIN}
    values |= {"words": list(job.words), "environment": dict(job.environment), **asdict(job.need)}
    return values | owner_values(job.owner)


def owner_values(owner: Owner | None) -> dict[str, Any]:
    return {
        "owner_host": owner.host if owner else None,
        "owner_pid": owner.pid if owner else None,
        "owner_process_started_at": owner.process_started_at if owner else None,
    }


def job_of(row: Mapping[Any, Any]) -> Job:
    values = {name: row[name] for name in _PLAIN}
    owner = None
    if row["owner_host"] is not None:
        owner = Owner(row["owner_host"], row["owner_pid"], row["owner_process_started_at"])
    return Job(**values, need=Need(row["cpus"], row["gpus"], row["memory_bytes"]), owner=owner)


def jobs_where(connection: sqlalchemy.Connection, *conditions: Any) -> list[Job]:
    """Oldest first."""
    rows = connection.execute(select(JOBS).where(*conditions).order_by(JOBS.c.created_at, JOBS.c.id))
    return [job_of(row) for row in rows.mappings()]


def read_queues(connection: sqlalchemy.Connection) -> dict[str, Queue]:
    return {
        row["name"]: Queue(
            row["name"],
            row["state"],
            Limits(row["max_cpus"], row["max_gpus"], row["max_memory_bytes"], row["max_running"]),
        )
        for row in connection.execute(select(QUEUES)).mappings()
    }


def write_queue(connection: sqlalchemy.Connection, queue: Queue) -> None:
    limits = {f"max_{name}": value for name, value in asdict(queue.limits).items()}
    values = {"name": queue.name, "state": queue.state, **limits}
    insert = tables.insert_into(QUEUES, connection).values(values)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values))


def served_since(connection: sqlalchemy.Connection, since: float, now: float) -> list[Job]:
    """Jobs that ran at some time since then; they carry when."""
    has_run = JOBS.c.started_at.is_not(None)
    return jobs_where(connection, has_run, sqlalchemy.func.coalesce(JOBS.c.ended_at, now) > since)

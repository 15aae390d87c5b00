"""What the queue says no to, and what to do instead."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy import and_, select

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError, RefusedError
from raytrain.runs import tables
from raytrain.runs.queue import rows
from raytrain.runs.queue.job import DEFAULT_QUEUE, Job, Queue

_JOBS = tables.queue_jobs
_ASKED_WITH = {
    "CPUs": "scaling.num_workers or --cpus",
    "GPUs": "scaling.num_workers or --gpus",
    "GB of memory": "--memory",
}


def refuse_unfit(queue: Queue, job: Job) -> None:
    if queue.state == "draining":
        raise RefusedError(
            f"queue {queue.name} takes no jobs",
            why="it is drained: what it has is worked off, nothing is added",
            fix=f"`raytrain queue resume {queue.name}`, or name another with --queue",
        )
    short = queue.limits.shortage(job.need)
    if short is not None:
        raise ConfigError(
            f"queue {queue.name} can never run this job",
            why=f"it needs {short.wanted:g} {short.noun}, the queue's limit is {short.limit:g}",
            fix=f"submit it with a lower {_ASKED_WITH[short.noun]}, name another queue with --queue, or raise the "
            "limit with `raytrain queue limit`",
        )


def refuse_same_run(connection: sqlalchemy.Connection, job: Job) -> None:
    """Of two jobs of one run, one would stand in the other's way."""
    if job.run_id is None:
        return
    same = and_(_JOBS.c.run_id == job.run_id, _JOBS.c.state.in_(("queued", "running")), _JOBS.c.id != job.id)
    for other in rows.jobs_where(connection, same):
        raise RefusedError(
            f"run {job.run_id} is in the queue already",
            why=f"job {other.id} is {other.label}",
            fix=f"`raytrain queue cancel {other.id}`, or change the recipe or --run-id",
        )


def unknown_queue(connection: sqlalchemy.Connection, name: str) -> ConfigError:
    known = sorted({DEFAULT_QUEUE, *rows.read_queues(connection)})
    near = nearest(name, known)
    return ConfigError(
        f"there is no queue `{name}`",
        why=f"there are {', '.join(known)}",
        fix=f"did you mean `{near}`?" if near else f"`raytrain queue limit {name}` makes it",
    )


def no_single_job(connection: sqlalchemy.Connection, name: str, found: list[str]) -> ConfigError:
    if found:
        shown = ", ".join(found[:5])
        return ConfigError(f"`{name}` fits {len(found)} jobs", why=shown, fix="give more of the id")
    newest = select(_JOBS.c.id).order_by(_JOBS.c.created_at.desc()).limit(1000)
    known = list(connection.execute(newest).scalars())
    near = nearest(name, known)
    return ConfigError(
        f"there is no job `{name}`",
        why=f"the queue knows {len(known)} jobs, none with this id or one that begins so"
        if known
        else "no job was ever submitted to this database",
        fix=f"did you mean `{near}`?" if near else "`raytrain queue list` shows all ids",
    )

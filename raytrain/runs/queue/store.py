"""The queue in the records database: what persons ask of it, what schedulers claim, what carriers tell.

Everything that decides over several jobs happens in one exclusive transaction, so that no limit is passed and no job is
started twice, however many schedulers there are. What is told of one start carries its number and counts only while no
later one has begun.
"""

from __future__ import annotations

import random
import time as clock
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import and_, select

from raytrain.errors import ConfigError
from raytrain.runs import tables
from raytrain.runs.ownership import Owner
from raytrain.runs.queue import rows
from raytrain.runs.queue.choosing import Choice, Situation, choose, weight
from raytrain.runs.queue.ending import Ended, judge
from raytrain.runs.queue.job import DEFAULT_QUEUE, Job, JobState, Limits, Queue, QueueState, Wish
from raytrain.runs.queue.refusals import no_single_job, refuse_same_run, refuse_unfit, unknown_queue
from raytrain.storage.database import exclusive, translated_database_errors

SERVED_WINDOW_S = 86400.0

_JOBS = tables.queue_jobs
_NO_CLUSTERS: Mapping[str, Limits] = MappingProxyType({})


@dataclass(frozen=True)
class Cancelled:
    """`how`: at once, asked (it saves and ends), or it had been asked before, or had ended before."""

    job: Job
    how: Literal["at once", "asked", "asked before", "ended before"]


class QueueStore:
    """Safe to share between threads. Every method raises StorageError where the database cannot be used."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self.engine = engine

    def _exclusive(self) -> AbstractContextManager[sqlalchemy.Connection]:
        return exclusive(self.engine, "queue")

    # What persons ask

    def submit(self, job: Job) -> Job:
        """Raises ConfigError for what can never run, RefusedError where its queue takes nothing or has it already."""
        with translated_database_errors(self.engine), self._exclusive() as connection:
            queue = rows.read_queues(connection).get(job.queue)
            if queue is None:
                if job.queue != DEFAULT_QUEUE:
                    raise unknown_queue(connection, job.queue)
                queue = Queue(DEFAULT_QUEUE)
                rows.write_queue(connection, queue)
            refuse_unfit(queue, job)
            refuse_same_run(connection, job)
            connection.execute(_JOBS.insert().values(rows.values_of(job)))
        return job

    def cancel(self, job_id: str, now: float | None = None) -> Cancelled:
        """A job that waits ends at once; one that runs is asked to save and end."""
        now = clock.time() if now is None else now
        with translated_database_errors(self.engine), self._exclusive() as connection:
            job = self._read(connection, job_id)
            if job.has_ended:
                return Cancelled(job, "ended before")
            if job.state == "queued":
                _change(
                    connection, job, state="cancelled", ended_at=now, exit_reason="cancelled before it ran"
                )
                return Cancelled(self._read(connection, job_id), "at once")
            if job.wish == "cancel":
                return Cancelled(job, "asked before")
            _change(connection, job, wish="cancel", wished_at=now)
            return Cancelled(self._read(connection, job_id), "asked")

    def retry(self, job_id: str, now: float | None = None) -> Job:
        """Put an ended job back, with all of its retries; it resumes from its checkpoint. ConfigError otherwise."""
        now = clock.time() if now is None else now
        with translated_database_errors(self.engine), self._exclusive() as connection:
            job = self._read(connection, job_id)
            if job.state not in ("failed", "cancelled"):
                raise ConfigError(
                    f"job {job.id} is {job.label}",
                    why="only a job that failed or was cancelled can be put back",
                    fix="submit it again for another run"
                    if job.state == "succeeded"
                    else "wait until it has ended",
                )
            queue = rows.read_queues(connection)[job.queue]
            refuse_unfit(queue, job)
            refuse_same_run(connection, job)
            fresh: dict[str, Any] = {
                "num_failures": 0,
                "num_losses": 0,
                "ended_at": None,
                "wish": None,
                "exit_code": None,
            }
            fresh |= rows.owner_values(None)
            _change(connection, job, state="queued", ready_at=now, exit_reason=None, **fresh)
            return self._read(connection, job_id)

    def get(self, job_id: str) -> Job:
        """The job with this id, or the only one whose id begins so; ConfigError otherwise."""
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            return self._read(connection, job_id)

    def jobs(
        self,
        *,
        states: Sequence[JobState] = (),
        queue: str | None = None,
        user: str | None = None,
        limit: int = 1000,
    ) -> list[Job]:
        """Newest first."""
        wanted = [
            *([_JOBS.c.state.in_(states)] if states else []),
            *([_JOBS.c.queue == queue] if queue else []),
            *([_JOBS.c.user == user] if user else []),
        ]
        newest = select(_JOBS).where(*wanted).order_by(_JOBS.c.created_at.desc(), _JOBS.c.id).limit(limit)
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            return [rows.job_of(row) for row in connection.execute(newest).mappings()]

    def queues(self) -> dict[str, Queue]:
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            return rows.read_queues(connection)

    def set_queue(self, name: str, *, state: QueueState | None = None, limits: Limits | None = None) -> Queue:
        """Change a queue; with `limits` one that is not there is made. ConfigError for an unknown one."""
        with translated_database_errors(self.engine), self._exclusive() as connection:
            queue = rows.read_queues(connection).get(name)
            if queue is None:
                if limits is None and name != DEFAULT_QUEUE:
                    raise unknown_queue(connection, name)
                queue = Queue(name)
            queue = replace(queue, state=state or queue.state, limits=limits or queue.limits)
            rows.write_queue(connection, queue)
        return queue

    # What schedulers do

    def start_what_fits(
        self,
        scheduler: str,
        host: str,
        room: Limits,
        now: float | None = None,
        obstacle: Callable[[Job], str | None] = lambda _: None,
        clusters: Mapping[str, Limits] = _NO_CLUSTERS,
    ) -> tuple[list[Job], Choice]:
        """Claim the jobs whose turn it is, and ask those to save that make room. The caller starts them.

        `obstacle` is asked while nobody else can claim, so it has to answer from memory. clusters: see `Situation`.
        """
        now = clock.time() if now is None else now
        with translated_database_errors(self.engine), self._exclusive() as connection:
            situation = self._situation(connection, host, room, now)
            choice = choose(replace(situation, obstacle=obstacle, clusters=clusters))
            for victim_id in choice.make_room:
                _change(connection, self._read(connection, victim_id), wish="preempt", wished_at=now)
            for job in choice.start:
                begun = {
                    "state": "running",
                    "num_starts": job.num_starts + 1,
                    "started_at": now,
                    "ended_at": None,
                    "gave_back_at": None,
                }
                unheard = {"wish": None, "heartbeat_at": now, "exit_code": None, "scheduler": scheduler}
                _change(connection, job, **begun, **unheard, **rows.owner_values(None))
            started = [self._read(connection, job.id) for job in choice.start]
        return started, choice

    def look_ahead(self, host: str, room: Limits, now: float | None = None) -> Choice:
        """What would start now, and why the rest waits; nothing is changed."""
        now = clock.time() if now is None else now
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            return choose(self._situation(connection, host, room, now))

    def _situation(self, connection: sqlalchemy.Connection, host: str, room: Limits, now: float) -> Situation:
        served: dict[tuple[str, str], float] = {}
        for job in rows.served_since(connection, now - SERVED_WINDOW_S, now):
            began = max(job.started_at or now, now - SERVED_WINDOW_S)
            until = now if job.state == "running" else job.ended_at or began
            until = until if job.gave_back_at is None else min(until, job.gave_back_at)
            key = (job.queue, job.user)
            served[key] = served.get(key, 0.0) + max(0.0, until - began) * weight(job.need)
        return Situation(
            waiting=rows.jobs_where(connection, _JOBS.c.state == "queued"),
            running=rows.jobs_where(connection, _JOBS.c.state == "running"),
            queues=rows.read_queues(connection),
            room=room,
            host=host,
            now=now,
            served=served,
        )

    def settle(
        self, job: Job, ended: Ended, *, draw: float | None = None, now: float | None = None
    ) -> Job | None:
        """Write down how this start of the job ended; None where a later one has begun or somebody did it before."""
        now = clock.time() if now is None else now
        draw = random.random() if draw is None else draw
        with translated_database_errors(self.engine), self._exclusive() as connection:
            current = self._read(connection, job.id)
            if current.state != "running" or current.num_starts != job.num_starts:
                return None
            verdict = judge(current, ended, draw)
            is_again = verdict.state == "queued"
            values: dict[str, Any] = {
                "state": verdict.state,
                "ended_at": now,
                "ready_at": now + verdict.wait_s if is_again else current.ready_at,
                "exit_code": ended.exit_code,
                "exit_reason": verdict.reason,
                "num_failures": current.num_failures + verdict.failures,
                "num_losses": current.num_losses + verdict.losses,
                "wish": None if is_again else current.wish,
                **({"log_tail": ended.log_tail} if ended.log_tail is not None else {}),
                **(rows.owner_values(None) if is_again else {}),
            }
            _change(connection, current, **values)
            return self._read(connection, job.id)

    def adopt(self, job: Job, scheduler: str) -> bool:
        """Take over a running job from the scheduler that had it; False where another was first."""
        same = and_(
            _JOBS.c.id == job.id,
            _JOBS.c.state == "running",
            _JOBS.c.num_starts == job.num_starts,
            _JOBS.c.scheduler == job.scheduler,
        )
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            return connection.execute(_JOBS.update().where(same).values(scheduler=scheduler)).rowcount == 1

    # What carriers tell

    def confirm(self, job_id: str, num_starts: int, owner: Owner, now: float | None = None) -> Job | None:
        """Make `owner` the one process that carries this start; None where it is not to be carried (any more)."""
        now = clock.time() if now is None else now
        unheld = and_(self._this_start(job_id, num_starts), _JOBS.c.owner_host.is_(None))
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            values = {**rows.owner_values(owner), "heartbeat_at": now}
            if connection.execute(_JOBS.update().where(unheld).values(values)).rowcount != 1:
                return None
            return self._read(connection, job_id)

    def beat(self, job_id: str, num_starts: int, now: float | None = None) -> tuple[bool, Wish | None]:
        """Whether this start still counts, and what is wished of it."""
        now = clock.time() if now is None else now
        this_start = self._this_start(job_id, num_starts)
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            counts = (
                connection.execute(_JOBS.update().where(this_start).values(heartbeat_at=now)).rowcount == 1
            )
            return counts, connection.execute(select(_JOBS.c.wish).where(this_start)).scalar()

    def give_back(self, run_id: str, now: float | None = None) -> bool:
        """What carries this run takes no workers from here on, for however long it goes on: others may have them.
        False where no job of the queue carries it. Its next start takes them anew."""
        now = clock.time() if now is None else now
        carries = and_(_JOBS.c.run_id == run_id, _JOBS.c.state == "running", _JOBS.c.gave_back_at.is_(None))
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            return connection.execute(_JOBS.update().where(carries).values(gave_back_at=now)).rowcount == 1

    @staticmethod
    def _this_start(job_id: str, num_starts: int) -> Any:
        return and_(_JOBS.c.id == job_id, _JOBS.c.num_starts == num_starts, _JOBS.c.state == "running")

    def _read(self, connection: sqlalchemy.Connection, job_id: str) -> Job:
        found = rows.jobs_where(connection, _JOBS.c.id == job_id)
        if not found:
            found = rows.jobs_where(connection, _JOBS.c.id.startswith(job_id, autoescape=True))
        if len(found) == 1:
            return found[0]
        raise no_single_job(connection, job_id, [job.id for job in found])


def _change(connection: sqlalchemy.Connection, job: Job, **values: Any) -> None:
    connection.execute(_JOBS.update().where(_JOBS.c.id == job.id).values(values))

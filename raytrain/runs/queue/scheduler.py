"""The scheduler's own loop: look after what runs, start what fits. Any number of them work on one database."""

from __future__ import annotations

import os
import secrets
import threading
import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from raytrain.errors import PlatformError, StorageError
from raytrain.runs.ownership import Owner
from raytrain.runs.queue.backend import Backend
from raytrain.runs.queue.choosing import Choice
from raytrain.runs.queue.ending import Ended
from raytrain.runs.queue.job import BackendName, Job, Limits
from raytrain.runs.queue.leases import SchedulerRows
from raytrain.runs.queue.presence import missing_here
from raytrain.runs.queue.store import QueueStore

EVERY_S = 2.0
BEAT_EVERY_S = 5.0
CANNOT_START = "could not be started"


@dataclass(frozen=True)
class Tick:
    """What one look did."""

    started: list[Job] = field(default_factory=list)
    settled: list[Job] = field(default_factory=list)
    choice: Choice = field(default_factory=lambda: Choice([], {}, {}))


class Scheduler:
    """`told` gets a line for every change."""

    def __init__(
        self,
        store: QueueStore,
        backends: Mapping[BackendName, Backend],
        room: Limits,
        told: Callable[[str], None],
        owner: Owner | None = None,
    ) -> None:
        self._store, self._backends, self._room, self._told = store, backends, room, told
        self._owner = owner or Owner.current()
        self._passed_over: dict[str, str | None] = {}
        self._rows = SchedulerRows(store.engine)
        self.id = f"{self._owner.host}-{self._owner.pid}-{secrets.token_hex(3)}"

    def tick(self, now: float | None = None) -> Tick:
        """One look at everything."""
        now = clock.time() if now is None else now
        self._rows.beat(self.id, self._owner, now)
        settled = self._look_after(now)
        waiting = self._store.jobs(states=["queued"], limit=1_000_000)
        missing = self._missing(waiting)
        started, choice = self._store.start_what_fits(
            self.id,
            self._owner.host,
            self._room,
            now,
            lambda job: missing.get(job.id, "was submitted a moment ago"),
            self._clusters([job for job in waiting if job.ready_at <= now and missing[job.id] is None], now),
        )
        for victim, urgent in choice.make_room.items():
            self._told(f"{victim} is asked to save and make room for {urgent}")
        for job in started:
            settled += self._begin(job)
        return Tick(started, settled, choice)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Tell in a thread of its own that this scheduler lives while the block works, however long a look takes."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_EVERY_S):
                with suppress(StorageError):  # the database may come back; the block notices by itself
                    self._rows.beat(self.id, self._owner, clock.time())

        thread = threading.Thread(target=beat, name="scheduler's lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(StorageError):  # then its row grows old
                self.end()

    def end(self) -> None:
        """Leave; local jobs go on below their carriers, those of clusters are looked after by the next scheduler."""
        self._rows.forget(self.id)

    def _clusters(self, jobs: Iterable[Job], now: float) -> dict[str, Limits]:
        """What those clusters have, by address, that jobs would start on now; asked before anybody waits for this."""
        places = sorted({(job.backend, job.address) for job in jobs if job.address is not None})
        rooms = (
            (address, self._backends[name].room(address, now))
            for name, address in places
            if name in self._backends
        )
        return {address: room for address, room in rooms if room is not None}

    def _missing(self, waiting: Iterable[Job]) -> dict[str, str | None]:
        """By job that waits, what of it is not here; told when it is new."""
        missing = {job.id: missing_here(job) for job in waiting}
        for job_id, what in missing.items():
            if what is not None and self._passed_over.get(job_id) != what:
                self._told(f"{job_id} is passed over: {what}")
        self._passed_over = missing
        return missing

    def _look_after(self, now: float) -> list[Job]:
        alive = {one.id for one in self._rows.all() if one.is_alive(now, self._owner.host)}
        settled: list[Job] = []
        for job in self._store.jobs(states=["running"], limit=1_000_000):
            backend = self._backends.get(job.backend)
            if backend is None or not self._is_mine(job, alive):
                continue
            ended = backend.look(job, now)
            if ended is None:
                if job.wish is not None:
                    backend.ask_to_stop(job)
                continue
            settled += self._settle(job, ended)
        return settled

    def _is_mine(self, job: Job, alive: set[str]) -> bool:
        """A local job tells of itself, whoever started it; one on a cluster has one scheduler that asks for it."""
        if job.backend == "local" or job.scheduler == self.id:
            return True
        if job.scheduler in alive or not self._store.adopt(job, self.id):
            return False
        self._told(f"{job.id} is looked after from here: its scheduler {job.scheduler} is gone")
        return True

    def _begin(self, job: Job) -> list[Job]:
        try:
            ended = self._backends[job.backend].start(
                job, lambda: self._store.beat(job.id, job.num_starts)[0]
            )
        except PlatformError as error:
            ended = Ended(None, f"{CANNOT_START}: {error.what} ({error.why})", not_begun=True)
        if ended is not None:
            return self._settle(job, ended)
        self._told(f"{job.id} started: raytrain {' '.join(job.words)}")
        return []

    def _settle(self, job: Job, ended: Ended) -> list[Job]:
        after = self._store.settle(job, ended)
        if after is None:
            return []
        wait = f", tried again in {after.ready_at - clock.time():.0f} s" if after.state == "queued" else ""
        self._told(f"{job.id} is {after.state}: {after.exit_reason or 'done'}{wait}")
        return [after]


def room_here(
    cpus: float | None = None, gpus: float | None = None, memory_bytes: int | None = None
) -> Limits:
    """What this machine lends to jobs of the back end `local`; what is not given is what it has."""
    affinity = getattr(os, "sched_getaffinity", None)
    num_cpus = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return Limits(
        cpus=num_cpus if cpus is None else cpus,
        gpus=float(len(list(Path("/dev").glob("nvidia[0-9]*")))) if gpus is None else gpus,
        memory_bytes=psutil.virtual_memory().total if memory_bytes is None else memory_bytes,
    )

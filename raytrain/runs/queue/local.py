"""Jobs as processes of this machine, each below a carrier that outlives the scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from raytrain.runs.ownership import Owner, owner_is_alive, process_start_time
from raytrain.runs.queue.ending import Ended
from raytrain.runs.queue.job import Job, Limits
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import translated_errors

BEGINS_WITHIN_S = 60.0
"""A start that no carrier has confirmed by then is void."""


def log_file(job: Job) -> Path:
    """What this start of the job prints."""
    return raytrain_home() / "queue" / job.id / f"log-{job.num_starts}.txt"


class LocalBackend:
    def __init__(self, this_host: str) -> None:
        self._this_host = this_host

    def start(self, job: Job, counts: Callable[[], bool]) -> Ended | None:  # noqa: ARG002
        """The carrier begins only what it can still confirm, so one that starts late does no harm."""
        log = log_file(job)
        with translated_errors(log, "write"):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                subprocess.Popen(
                    [sys.executable, "-m", "raytrain.runs.queue.carrier", job.id, str(job.num_starts)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C of the scheduler is not the job's
                )
        return None

    def look(self, job: Job, now: float) -> Ended | None:
        """The carrier tells how the job ends; here those are found whose carrier died."""
        if job.owner is None:
            if now - (job.started_at or now) > BEGINS_WITHIN_S:
                return Ended(None, f"no process began it within {BEGINS_WITHIN_S:.0f} s")
            return None
        if owner_is_alive(job.owner, job.heartbeat_at, now, self._this_host, process_start_time):
            return None
        if job.owner.host == self._this_host and _has_processes(job.owner):
            return None  # they were told by the system to save and end, when the carrier died
        return Ended(None, f"process {job.owner.pid} on {job.owner.host}, which carried it, is gone")

    def room(self, address: str | None, now: float) -> Limits | None:  # noqa: ARG002
        return None

    def ask_to_stop(self, job: Job) -> None:
        """The carrier asks the database by itself."""


def _has_processes(carrier: Owner) -> bool:
    """Whether what the dead carrier began still lives: it led a session, whose number no new process gets meanwhile."""
    if psutil.pid_exists(carrier.pid):
        with suppress(psutil.Error):
            if psutil.Process(carrier.pid).status() != psutil.STATUS_ZOMBIE:
                return False  # another process has the number, so the session is gone
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == carrier.pid:
                return True
    return False

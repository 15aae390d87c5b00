"""Carries one start of a job on this machine: `python -m raytrain.runs.queue.carrier JOB START`.

It outlives the scheduler that began it, passes on what is wished of the job, and writes down how the job ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

from raytrain.errors import StorageError
from raytrain.runs.ownership import Owner
from raytrain.runs.queue.ending import IN_QUEUE, Ended
from raytrain.runs.queue.job import Job
from raytrain.runs.queue.local import log_file
from raytrain.runs.queue.log_tail import tail_of
from raytrain.runs.queue.patience import patiently
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.records import open_records
from raytrain.runs.signals import SignalWatch

ASK_EVERY_S = 1.0
STOP_WITHIN_S = float(os.environ.get("RAYTRAIN_STOP_WITHIN_S", "600"))
"""After which a job that was asked to save and end is killed."""

_OUT_OF_MEMORY = "killed (out of memory is the usual cause)"
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    job_id, num_starts = arguments[0], int(arguments[1])
    records = open_records()
    store = QueueStore(records.engine)
    job = store.confirm(job_id, num_starts, Owner.current())
    if job is None:
        print(f"start {num_starts} of job {job_id} is void: it was cancelled, or begun anew", flush=True)
        return 0
    with SignalWatch() as watch:
        code, reason = _carried(store, job, watch)
    ended = Ended(code, reason, tail_of(log_file(job)))
    # A job whose end nobody hears of would be begun again.
    patiently(lambda: store.settle(job, ended), lambda line: print(line, flush=True))
    records.close()
    return 0


def _carried(store: QueueStore, job: Job, watch: SignalWatch) -> tuple[int, str | None]:
    """The exit code of the job's process, negative where a signal ended it, and why, where that is known."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "raytrain", *job.words],
            cwd=job.folder,
            env={**os.environ, **job.environment, IN_QUEUE: job.id},
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    except OSError as error:
        print(f"it cannot be started in {job.folder}: {error}", flush=True)
        return 2, None
    asked_at: float | None = None
    killed: str | None = None
    while True:
        try:
            code = process.wait(ASK_EVERY_S)
            return code, (killed or _OUT_OF_MEMORY) if code == -signal.SIGKILL else None
        except subprocess.TimeoutExpired:
            pass
        if asked_at is None and (watch.signal_name is not None or _is_to_end(store, job)):
            asked_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
        elif asked_at is not None:
            _is_to_end(store, job)  # a sign of life
            if time.monotonic() - asked_at > STOP_WITHIN_S:
                killed = f"killed: it had not ended {STOP_WITHIN_S:.0f} s after it was asked to"
                print(killed, flush=True)
                process.kill()


def _is_to_end(store: QueueStore, job: Job) -> bool:
    try:
        counts, wish = store.beat(job.id, job.num_starts)
    except StorageError as error:
        print(f"the records database does not answer, the job goes on: {error.why}", flush=True)
        return False
    return wish is not None or not counts


def _end_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when the carrier dies, so that the run saves and ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

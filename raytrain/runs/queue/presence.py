"""Whether this machine has what a job needs of it."""

from __future__ import annotations

import socket
from pathlib import Path

from raytrain.runs.queue.job import Job


def missing_here(job: Job) -> str | None:
    """What a start from this machine would fail for; another machine may have it."""
    if job.backend == "local" and not Path(job.folder).is_dir():
        return f"its folder {job.folder} is not on {socket.gethostname()}"
    if job.backend == "ray" and job.package is not None and not Path(job.package).is_file():
        return f"its package {job.package} is not on {socket.gethostname()}"
    return None

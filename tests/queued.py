"""Jobs of the queue as tests want them."""

from __future__ import annotations

import time
from typing import Any

from raytrain.runs.queue.job import Job, Need


def a_job(job_id: str = "job-1", **values: Any) -> Job:
    """A normal job of one CPU in the default queue, which has waited for a second."""
    now = values.pop("now", None) or time.time()
    defaults: dict[str, Any] = {
        "queue": "default", "priority": "P1", "user": "ada", "words": ["runs", "list"], "folder": "/",
        "backend": "local", "need": Need(), "created_at": now - 1.0, "ready_at": now - 1.0,
    }  # fmt: skip
    return Job(**{"id": job_id, **defaults, **values})

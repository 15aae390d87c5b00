"""What carries a job. One contract for all: tests/queue_contract.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from raytrain.runs.queue.ending import Ended
from raytrain.runs.queue.job import Job, Limits


class Backend(Protocol):
    """Called by schedulers, in any process and on any machine; it keeps nothing in memory between two calls.

    A back end may carry a job to its end and settle it in the store by itself; then `look` only finds those that died.
    """

    def start(self, job: Job, counts: Callable[[], bool]) -> Ended | None:
        """Begin this start of a claimed job and return.

        `counts` asks the store whether this start is still the one; what takes long is done before it is asked, and
        nothing is begun for one that is not.

        Not None where an earlier start, which counted as gone, has done the job meanwhile. Raises PlatformError where
        nothing was begun: it is then tried again later.
        """

    def look(self, job: Job, now: float) -> Ended | None:
        """None while it goes on, or where that cannot be told yet; `exit_code` None where it is gone without a word."""

    def room(self, address: str | None, now: float) -> Limits | None:
        """What there is at this address for all jobs together. None where nobody can say, or where it is no affair of
        the back end's: what this machine has, its scheduler knows."""

    def ask_to_stop(self, job: Job) -> None:
        """See to it that a job with a wish saves and ends, and is ended where it does not; called again and again."""

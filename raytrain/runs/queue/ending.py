"""What becomes of a job when its process has ended, or is gone."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from raytrain.runs.queue.job import Job, JobState

BACK_OFF_S, LONGEST_BACK_OFF_S = 10.0, 600.0
MOST_LOSSES = 5
"""A job whose machine went away more often than this may be what takes the machines down."""

_SAME_AGAIN = {2: "configuration", 3: "data", 5: "a refusal"}
"""Exit codes of `raytrain` that another try ends with as well."""

IN_QUEUE = "RAYTRAIN_QUEUE_JOB"
"""Variable of a job's process, which holds the job's id."""

STOPPED_CODE = 6
"""A command with this variable ends so after `raytrain runs stop`: in order, and not done. Without it the code is 0."""

_ASKED_TO_END = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
_KILLED = {-signal.SIGKILL, 128 + signal.SIGKILL}


@dataclass(frozen=True)
class Ended:
    """How a job's process ended. `exit_code` is negative where a signal killed it, None where nobody saw it end."""

    exit_code: int | None
    reason: str | None = None
    log_tail: str | None = None
    not_begun: bool = False
    """Nothing of this start ever ran, and nothing was lost: its machine or cluster could not begin it."""


@dataclass(frozen=True)
class Verdict:
    """The job's next state, and what is added to its counts."""

    state: JobState
    reason: str | None
    wait_s: float = 0.0
    failures: int = 0
    losses: int = 0


def judge(job: Job, ended: Ended, draw: float) -> Verdict:
    """`draw` from [0, 1) spreads the waits of jobs that failed together."""
    code = ended.exit_code
    if ended.not_begun:
        return _not_begun(job, ended.reason, draw)
    if code == 0:
        return Verdict("succeeded", None)
    if job.wish == "cancel":
        return Verdict("cancelled", "cancelled while it ran")
    if job.wish == "preempt" and (code is None or code in _ASKED_TO_END | _KILLED):
        killed = f", {ended.reason}" if code in _KILLED and ended.reason else ""
        return Verdict("queued", "made room for an urgent job" + killed)
    if code == STOPPED_CODE:
        return Verdict("cancelled", "its run was asked to stop")
    if code is None or code in _ASKED_TO_END:
        return _lost(job, ended.reason or f"ended by {_told(code)} from elsewhere", draw)
    reason = ended.reason or f"ended with {_told(code)}"
    if code in _SAME_AGAIN:
        return Verdict(
            "failed", f"{reason}: {_SAME_AGAIN[code]}, which another try does not change", failures=1
        )
    if job.num_failures >= job.max_retries:
        tries = f", after {job.num_failures} retries" if job.num_failures else ""
        return Verdict("failed", reason + tries, failures=1)
    return Verdict("queued", reason, back_off_s(job.num_failures + 1, draw), failures=1)


def _not_begun(job: Job, reason: str | None, draw: float) -> Verdict:
    if job.wish == "cancel":
        return Verdict("cancelled", "cancelled before it ran")
    return Verdict("queued", reason, back_off_s(job.num_starts, draw))


def _lost(job: Job, reason: str, draw: float) -> Verdict:
    if job.num_losses >= MOST_LOSSES:
        return Verdict("failed", f"{reason}, for the {job.num_losses + 1}th time", losses=1)
    return Verdict(
        "queued", reason, back_off_s(job.num_losses + 1, draw) if job.num_losses else 0.0, losses=1
    )


def back_off_s(num_failures: int, draw: float) -> float:
    """Doubled at each failure up to a limit; the second half of the span is by chance."""
    span = min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2.0 ** min(num_failures - 1, 30))
    return span * (0.5 + 0.5 * draw)


def _told(code: int | None) -> str:
    if code is None:
        return "no word"
    number = -code if code < 0 else code - 128
    if code < 0 or code in _ASKED_TO_END:
        return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"exit code {code}"

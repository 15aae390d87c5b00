"""Runs and jobs that failed, and searches that ended with their budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raytrain.errors import ConfigError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.observers.observer import Look
from raytrain.runs.queue.job import Job
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.record_types import RunRecord, RunState
from raytrain.runs.records import Records

LOOK_BACK_S = 3600.0
"""Longer than it can take until somebody sees that an owner is dead, and than clocks differ."""
_OLDEST_S = 60 * 86400.0
"""Runs that were made longer ago are not looked at."""
_PAGE = 200
_BUDGET = "search.budget."


class RunObserver:
    """See `Observer`."""

    name, every_s = "runs", 0.0

    def __init__(self, records: Records) -> None:
        self._records = records

    def look(self, seen: Any, now: float) -> Look:
        if not isinstance(seen, dict):
            return Look((), {"until": now, "from": now})
        first = float(seen["from"])
        since = max(first, float(seen["until"]) - LOOK_BACK_S)
        found = [*failed_runs(self._records, since, now), *failed_jobs(self._records, since)]
        found += spent_searches(self._records, since, now)
        return Look(found, {"until": max(now, float(seen["until"])), "from": first})


def failed_runs(records: Records, since: float, now: float) -> list[Alert]:
    """Of runs that have failed since then, those among them whose owner died without a word."""
    found = [run for run in _in_state(records, "failed", now) if (run.ended_at or now) >= since]
    return [_failed(run, is_trial=_is_trial(records, run), now=now) for run in found]


def failed_jobs(records: Records, since: float) -> list[Alert]:
    """Of jobs of the queue that will not be tried again."""
    jobs = QueueStore(records.engine).jobs(states=["failed"])
    return [_failed_job(job) for job in jobs if (job.ended_at or 0.0) >= since]


def spent_searches(records: Records, since: float, now: float) -> list[Alert]:
    """Of searches that ended because their budget is used."""
    return [
        _spent(run)
        for run in _in_state(records, "succeeded", now)
        if run.kind == "tune"
        and (run.ended_at or 0.0) >= since
        and (run.exit_reason or "").startswith(_BUDGET)
    ]


def _in_state(records: Records, state: RunState, now: float) -> Iterator[RunRecord]:
    start = 0
    while True:
        page = records.list_runs(state=state, since=now - _OLDEST_S, limit=_PAGE, offset=start)
        yield from page.runs
        start += _PAGE
        if start >= page.total or not page.runs:
            return


def _is_trial(records: Records, run: RunRecord) -> bool:
    """Of a search, which goes on without it: its id is the search's with a number."""
    search, dash, number = run.id.rpartition("-")
    if not dash or len(number) != 4 or not number.isdigit():
        return False
    try:
        return records.get_run(search).kind == "tune"
    except ConfigError:
        return False


def _failed(run: RunRecord, *, is_trial: bool, now: float) -> Alert:
    error = run.error or {}
    what = str(error.get("what") or run.exit_reason or "nobody wrote down why")
    told = [what, *(f"{key}: {error[key]}" for key in ("why", "fix") if error.get(key))]
    if run.owner_gone:
        told = ["the process that carried it died without a word", "fix: the same command goes on with it"]
    details = {"run": run.id, "recipe": run.name, "step": str(run.global_step)}
    if run.owner is not None:
        details["machine"] = run.owner.host
    return Alert(
        kind="run_failed",
        subject=run.id,
        severity="info" if is_trial else "critical",
        title=f"{run.kind} {run.name} failed" + (" (one trial of a search)" if is_trial else ""),
        text="\n".join([*told, f"look: raytrain runs show {run.id}"]),
        time=run.ended_at or now,
        details=details,
        event=f"{run.id} {run.ended_at}",
    )


def _failed_job(job: Job) -> Alert:
    command = " ".join(["raytrain", *job.words[:2]])
    return Alert(
        kind="run_failed",
        subject=job.run_id or job.id,  # of a run that has failed as well: one of the two is told
        severity="critical",
        title=f"the job {command} failed",
        text=f"{job.exit_reason or 'nobody wrote down why'}\nlook: raytrain queue status {job.id}",
        time=job.ended_at or job.created_at,
        details={"job": job.id, "queue": job.queue, "user": job.user, "run": job.run_id or ""},
        event=f"job {job.id} {job.num_starts}",
    )


def _spent(run: RunRecord) -> Alert:
    return Alert(
        kind="budget",
        subject=run.id,
        severity="warning",
        title=f"the budget of the search {run.name} is used",
        text=f"{run.exit_reason}\nIts best trial so far stands. raise the budget, and the same command goes on",
        time=run.ended_at or run.created_at,
        details={"run": run.id},
        state=f"used at {run.ended_at}",  # a larger one was used as well
        event=f"{run.id} {run.ended_at}",
    )

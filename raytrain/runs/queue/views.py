"""The queue as a person reads it, and as the objects that `--json` prints."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raytrain.runs.cost import Line
from raytrain.runs.queue.job import Job, Limits, Need, Queue
from raytrain.runs.queue.leases import SchedulerRows
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.views import as_time, duration, local_time

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_TIMES = ("created_at", "ready_at", "started_at", "ended_at", "wished_at", "heartbeat_at")
_STYLES = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow", "queued": "dim"}


def job_object(job: Job) -> dict[str, Any]:
    """Of the environment the names alone: values may be secrets."""
    times = {name: as_time(getattr(job, name)) for name in _TIMES}
    return {**asdict(job), **times, "words": list(job.words), "environment": sorted(job.environment)}


def status_object(job: Job, reason: str | None, cost: Line | None) -> dict[str, Any]:
    return {**job_object(job), "waits_because": reason, "cost": None if cost is None else asdict(cost)}


def queue_object(queue: Queue) -> dict[str, Any]:
    return asdict(queue)


def reasons_now(store: QueueStore) -> dict[str, str]:
    """Why jobs wait, as far as it does not depend on which machine they would run on."""
    choice = store.look_ahead(socket.gethostname(), Limits())
    turns = {
        job.id: f"it is its turn as soon as {_place(job)} has room, and a scheduler works"
        for job in choice.start
    }
    return {**turns, **choice.reasons}


def _place(job: Job) -> str:
    return "a machine" if job.backend == "local" else f"the cluster at {job.address}"


def command(job: Job) -> str:
    return "raytrain " + " ".join(job.words)


def jobs_table(jobs: Sequence[Job], reasons: Mapping[str, str], now: float) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("job", "state", "prio", "queue", "user", "age", "tries", "command", "why"):
        table.add_column(column, no_wrap=column != "why", overflow="fold")
    for job in jobs:
        why = reasons.get(job.id, "") if job.state == "queued" else ""
        since = f" (before: {job.exit_reason})" if job.state == "queued" and job.exit_reason else ""
        told = why + since if job.state == "queued" else job.exit_reason or ""
        table.add_row(
            job.id, f"[{_STYLES[job.state]}]{job.label}[/]", job.priority, job.queue, job.user,
            duration(now - job.created_at), str(job.num_starts), _escaped(command(job)), _escaped(told),
        )  # fmt: skip
    return table


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def show_job(console: Console, job: Job, reason: str | None, cost: Line | None) -> None:
    facts: list[tuple[str, str | None]] = [
        ("job", job.id),
        ("state", job.label + (f": {job.exit_reason}" if job.exit_reason else "")),
        ("waits", reason),
        ("command", command(job)),
        ("folder", job.folder),
        ("queue", f"{job.queue}, {job.priority}, of {job.user}"),
        ("needs", needs(job.need)),
        ("runs", f"{job.backend}{f' at {job.address}' if job.address else ''}"),
        ("process", f"{job.owner.pid} on {job.owner.host}" if job.owner else None),
        ("run", job.run_id),
        ("cost", cost.told() if cost else None),
        ("submitted", local_time(job.created_at)),
        ("started", local_time(job.started_at) if job.started_at else None),
        ("ended", local_time(job.ended_at) if job.ended_at and job.has_ended else None),
        (
            "tries",
            f"{job.num_starts}; {job.num_failures} failed (of {job.max_retries} retries), {job.num_losses} lost",
        ),
    ]
    for name, value in facts:
        if value:
            console.print(f"{name:<10} {value}", markup=False, highlight=False)
    if job.log_tail:
        console.print("\n[bold]end of its log[/]")
        console.print(job.log_tail, markup=False, highlight=False)


def needs(need: Need) -> str:
    parts = [f"{need.cpus:g} CPUs"]
    parts += [f"{need.gpus:g} GPUs"] if need.gpus else []
    parts += [f"{need.memory_bytes / 1e9:g} GB"] if need.memory_bytes else []
    return ", ".join(parts)


def queue_line(queue: Queue) -> str:
    limits = queue.limits
    told = [
        f"{limits.cpus:g} CPUs" if limits.cpus is not None else "",
        f"{limits.gpus:g} GPUs" if limits.gpus is not None else "",
        f"{limits.memory_bytes / 1e9:g} GB" if limits.memory_bytes is not None else "",
        f"{limits.running} jobs at once" if limits.running is not None else "",
    ]
    return f"queue {queue.name} is {queue.state}; at most {', '.join(filter(None, told)) or 'what there is'}"


def overview(store: QueueStore, schedulers: SchedulerRows, now: float) -> dict[str, Any]:
    active = store.jobs(states=["queued", "running"], limit=1_000_000)
    queues = []
    for queue in store.queues().values():
        own = [job for job in active if job.queue == queue.name]
        states = Counter(job.state for job in own)
        used = sum((job.taken for job in own if job.state == "running"), Need(0.0, 0.0, 0))
        counts = {"queued": states["queued"], "running": states["running"]}
        queues.append({**queue_object(queue), **counts, "used": asdict(used), "told": queue_line(queue)})
    host = socket.gethostname()
    found = [
        {"id": one.id, "host": one.owner.host, "pid": one.owner.pid, "alive": one.is_alive(now, host),
         "heartbeat_at": as_time(one.heartbeat_at)}
        for one in schedulers.all()
    ]  # fmt: skip
    return {"queues": queues, "schedulers": found}


def show_overview(console: Console, found: Mapping[str, Any]) -> None:
    for queue in found["queues"]:
        console.print(
            f"{queue['told']}: {queue['running']} run, {queue['queued']} wait", markup=False, highlight=False
        )
    if not found["queues"]:
        console.print("no job was submitted yet")
    for one in found["schedulers"]:
        state = "works" if one["alive"] else "is gone"
        console.print(f"scheduler {one['id']} {state}, last heard of {one['heartbeat_at']}", highlight=False)
    if not any(one["alive"] for one in found["schedulers"]):
        console.print("no scheduler works: `raytrain queue work` starts one", highlight=False)


def show_work(console: Console, result: Mapping[str, Any]) -> None:
    console.print(
        f"{result['started']} jobs started, {result['settled']} found ended, {result['left']} left",
        highlight=False,
    )

"""`raytrain queue`: commands that wait for their turn, and the scheduler that starts them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.costs import YesOption
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.queued_jobs import JobArgument, QueueArgument, QueueOption, opened_queue
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.runs.queue.job import QueueState

app = typer.Typer(
    help="Let commands wait for their turn: submit, look, cancel, and work them off.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_STEP_S = 0.2


@app.command("submit")
def submit(
    what: Annotated[
        str, typer.Argument(help="A long command: train, evaluate, tune, pipeline (that is run) or retrain.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARGUMENT]...", help="As behind the command itself; `--` before its options."
        ),
    ] = None,
    queue: QueueOption = "default",
    priority: Annotated[str, typer.Option(help="P0 urgent, P1 normal, P2 background.")] = "P1",
    cpus: Annotated[
        float | None, typer.Option(min=0, help="Default: what the recipe's workers take.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="Default: what the recipe's workers take.")
    ] = None,
    memory_gb: Annotated[float, typer.Option("--memory", min=0, help="GB, for the queue's limits.")] = 0.0,
    retries: Annotated[int, typer.Option(min=0, max=100, help="Further tries where it fails.")] = 3,
    backend: Annotated[
        str | None, typer.Option(help="ray (the default where a cluster is named), or local processes.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Of the cluster's Jobs API: http://HEAD:8265.")] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="For the job's process.")
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put a command into a queue; a running `raytrain queue work` starts it when its turn has come."""
    from raytrain.cli.queued_jobs import Asked, check_words, command_words, job_of, with_cost_confirmed
    from raytrain.cli.queued_search import with_trials_bounded
    from raytrain.runs.queue import views

    typed = command_words(what, arguments or [])
    check_words(typed)
    bounded = with_trials_bounded(typed, cpus, gpus)
    words = with_cost_confirmed(bounded, yes=yes, as_json=as_json)

    asked = Asked(
        words, queue, priority, backend, address, cpus, gpus, memory_gb, retries, environment or []
    )  # fmt: skip
    job = job_of(asked)
    with opened_queue() as store:
        store.submit(job)

    def show(console: Console) -> None:
        console.print(f"{job.id} waits in queue {job.queue} with {job.priority}", highlight=False)
        if bounded != typed:
            console.print(f"{bounded[-1]}: set it, or --cpus, for another number of trials", highlight=False)
        console.print(f"look: raytrain queue status {job.id}    work: raytrain queue work", highlight=False)

    emit({"job": views.job_object(job)}, as_json, show)


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Of this queue alone.")] = None,
    user: Annotated[str | None, typer.Option(help="Of this user alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most jobs to show.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Jobs, newest first; for those that wait, why."""
    from raytrain.cli.recorded_runs import wide
    from raytrain.runs.queue import views
    from raytrain.runs.queue.job import check_job_state

    states = [check_job_state(state)] if state is not None else []
    with opened_queue() as store:
        jobs = store.jobs(states=states, queue=queue, user=user, limit=limit)
        reasons = views.reasons_now(store)
    found = [{**views.job_object(job), "waits_because": reasons.get(job.id)} for job in jobs]

    def show(console: Console) -> None:
        wide(console).print(views.jobs_table(jobs, reasons, time.time()) if jobs else "no job fits")

    emit({"jobs": found}, as_json, show)


@app.command("status")
def status(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="One job's; default: all queues'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Queues with their limits and schedulers; or one job with what it has cost and the end of its log."""
    from raytrain.cli.queued_jobs import one_job
    from raytrain.cli.recorded_runs import wide
    from raytrain.runs.queue import views
    from raytrain.runs.queue.leases import SchedulerRows

    with opened_queue() as store:
        if job is not None:
            found, reason, cost = one_job(store, job)
            shown = {"job": views.status_object(found, reason, cost)}
            emit(shown, as_json, lambda console: views.show_job(console, found, reason, cost))
            return
        overview = views.overview(store, SchedulerRows(store.engine), time.time())
    emit(overview, as_json, lambda console: views.show_overview(wide(console), overview))


@app.command("cancel")
def cancel(job: JobArgument, as_json: JsonOption = False) -> None:
    """End a job: at once where it waits; one that runs saves a checkpoint first."""
    from raytrain.runs.queue import views

    with opened_queue() as store:
        result = store.cancel(job)
    found = result.job
    text = {
        "at once": f"{found.id} is cancelled",
        "asked": f"{found.id} was asked to save and end",
        "asked before": f"{found.id} was asked to save and end before; it is still at it",
        "ended before": f"nothing to do: {found.id} is {found.label}"
        + (f" ({found.exit_reason})" if found.exit_reason else ""),
    }[result.how]
    emit(
        {"job": views.job_object(found), "how": result.how},
        as_json,
        lambda console: console.print(text, markup=False, highlight=False),
    )


@app.command("retry")
def retry(job: JobArgument, as_json: JsonOption = False) -> None:
    """Put a failed or cancelled job back; it goes on from its run's checkpoint."""
    from raytrain.runs.queue import views

    with opened_queue() as store:
        found = store.retry(job)
    emit(
        {"job": views.job_object(found)},
        as_json,
        lambda console: console.print(f"{found.id} waits again", highlight=False),
    )


@app.command("pause")
def pause(queue: QueueArgument = "default", as_json: JsonOption = False) -> None:
    """Start nothing more from a queue; what runs goes on, and jobs may be added."""
    _set_state(queue, "paused", as_json)


@app.command("resume")
def resume(queue: QueueArgument = "default", as_json: JsonOption = False) -> None:
    """Open a queue that was paused or drained."""
    _set_state(queue, "open", as_json)


@app.command("drain")
def drain(
    queue: QueueArgument = "default",
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is empty.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take no more jobs into a queue; those that it has are worked off."""
    from raytrain.runs.queue.scheduler import EVERY_S

    with opened_queue() as store:
        store.set_queue(queue, state="draining")
        while wait and (left := store.jobs(states=["queued", "running"], queue=queue)):
            if not as_json:
                stderr_console().print(f"{len(left)} jobs are left", highlight=False)
            time.sleep(EVERY_S)
    _told_queue(queue, as_json)


@app.command("limit")
def limit(
    queue: QueueArgument,
    cpus: Annotated[float | None, typer.Option(min=0, help="Most CPUs of its running jobs together.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="Most GPUs.")] = None,
    memory_gb: Annotated[float | None, typer.Option("--memory", min=0, help="Most GB of memory.")] = None,
    running: Annotated[int | None, typer.Option(min=0, help="Most jobs at once.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a queue's jobs may take together, and make the queue where it is not there; nothing = no limit."""
    from raytrain.runs.queue.job import Limits

    memory_bytes = None if memory_gb is None else int(memory_gb * 1e9)
    with opened_queue() as store:
        store.set_queue(queue, limits=Limits(cpus, gpus, memory_bytes, running))
    _told_queue(queue, as_json)


@app.command("work")
def work(
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when no job waits or runs.")
    ] = False,
    every_s: Annotated[
        float | None, typer.Option("--every", min=0.1, help="Seconds between two looks.")
    ] = None,
    cpus: Annotated[float | None, typer.Option(min=0, help="That this machine lends; default: all.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="That this machine lends; default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Start jobs whose turn it is, and look after those that run, until Ctrl-C. Several may work side by side."""
    from raytrain.cli.queued_jobs import scheduler_of
    from raytrain.runs.queue import views
    from raytrain.runs.queue.patience import patiently
    from raytrain.runs.queue.scheduler import EVERY_S
    from raytrain.runs.signals import SignalWatch

    if once and until_empty:
        raise ConfigError(
            "--once and --until-empty", why="one look is not until the end", fix="take one of them"
        )
    counts = {"started": 0, "settled": 0}
    with opened_queue() as store, SignalWatch() as watch:
        console = stderr_console()
        scheduler = scheduler_of(store, cpus, gpus, console)

        def look() -> bool:
            """Whether it was the last."""
            tick = scheduler.tick()
            counts["started"] += len(tick.started)
            counts["settled"] += len(tick.settled)
            return once or (until_empty and not store.jobs(states=["queued", "running"], limit=1))

        def told(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        def is_over() -> bool:
            return watch.signal_name is not None

        with scheduler.working():
            while not is_over() and not (look() if once else patiently(look, told, is_over)):
                _sleep(every_s or EVERY_S, watch)
        left = len(store.jobs(states=["queued", "running"], limit=1_000_000))
    result: dict[str, Any] = {**counts, "left": left, "stopped_by": watch.signal_name}
    emit(result, as_json, lambda console: views.show_work(console, result))


def _sleep(seconds: float, watch: Any) -> None:
    until = time.monotonic() + seconds
    while watch.signal_name is None and time.monotonic() < until:
        time.sleep(min(_STEP_S, seconds))


def _set_state(queue: str, state: QueueState, as_json: bool) -> None:
    with opened_queue() as store:
        store.set_queue(queue, state=state)
    _told_queue(queue, as_json)


def _told_queue(name: str, as_json: bool) -> None:
    from raytrain.runs.queue import views

    with opened_queue() as store:
        queue = store.queues()[name]
    emit(
        {"queue": views.queue_object(queue)},
        as_json,
        lambda console: console.print(views.queue_line(queue), markup=False, highlight=False),
    )

"""`raytrain runs`: what happened, what is going on, and how it went."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli import costs, run_charts, run_logs
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.recorded_runs import RunArgument, opened_records, wide
from raytrain.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.runs.record_types import RunRecord

app = typer.Typer(
    help="Look at runs: list, follow, compare, stop.", no_args_is_help=True, rich_markup_mode=None
)

_POLL_EVERY_S = 0.5


@app.command("list")
def list_runs(
    state: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Such as train, tune, evaluate or retrain.")] = None,
    name: Annotated[str | None, typer.Option(help="Part of the name.")] = None,
    since: Annotated[str | None, typer.Option(help="An age (90m, 36h, 2d) or a date.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most runs to show.")] = 20,
    offset: Annotated[int, typer.Option(min=0, max=2**40, help="Runs to leave out first.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Runs that fit the filters, newest first."""
    from raytrain.runs import views
    from raytrain.runs.record_types import check_kind, check_state

    now = time.time()
    with opened_records() as records:
        page = records.list_runs(
            state=check_state(state) if state is not None else None,
            kind=check_kind(kind) if kind is not None else None,
            name=name,
            since=views.parse_since(since, now) if since else None,
            limit=limit,
            offset=offset,
        )
        rows = [(run, records.last_value(run.id, "train/loss")) for run in page.runs]

    def show(console: Console) -> None:
        if not rows:
            console.print("no run fits" if page.total == 0 else f"only {page.total} runs fit; lower --offset")
            return
        wide(console).print(views.runs_table(rows, now))
        if page.total > len(rows):
            console.print(f"{offset + 1} to {offset + len(rows)} of {page.total}; see --limit and --offset")

    found = [{**views.run_object(run), "train_loss": views.point_object(loss)} for run, loss in rows]
    emit({"runs": found, "total": page.total, "limit": limit, "offset": offset}, as_json, show)


@app.command("show")
def show_run(run: RunArgument, as_json: JsonOption = False) -> None:
    """One run: state, metrics, artifacts and where they came from, events, and how to go on with it."""
    from dataclasses import asdict

    from raytrain.runs import views
    from raytrain.runs.compare import summarise

    with opened_records() as records:
        record = records.run_with_prefix(run)
        metrics = {key: summarise(key, points) for key, points in records.metrics(record.id).items()}
        uses, events = records.artifacts(record.id), records.events(record.id)
        written = [use for use in uses if use.direction == "written"]
        result = next(
            (use for use in reversed(written) if use.role == "model"), written[-1] if written else None
        )
        lineage = records.lineage(result.digest) if result else None

    def show(console: Console) -> None:
        console = wide(console)
        _show_facts(console, record)
        for title, table in (
            ("metrics", views.metrics_table(metrics) if metrics else None),
            ("artifacts", views.artifacts_table(uses) if uses else None),
            ("lineage", views.lineage_tree(lineage) if lineage else None),
        ):
            if table is not None:
                console.print(f"\n[bold]{title}[/]")
                console.print(table)
        console.print("\n[bold]events[/]")
        for event in events:
            console.print(views.event_line(event), markup=False, highlight=False)

    shown = {
        "run": {**views.run_object(record), "resume": views.resume_command(record)},
        "metrics": {
            key: {"last": views.point_object(one.last), "best": views.point_object(one.best)}
            for key, one in metrics.items()
        },
        "artifacts": [views.use_object(use) for use in uses],
        "lineage": asdict(lineage) if lineage else None,
        "events": [views.event_object(event) for event in events],
    }
    emit(shown, as_json, show)


def _show_facts(console: Console, run: RunRecord) -> None:
    from raytrain.runs import views
    from raytrain.storage.home import run_folder

    facts: list[tuple[str, str | None]] = [
        ("run", f"{run.id} ({run.kind})"),
        ("state", run.label + (f": {run.exit_reason}" if run.exit_reason and not run.owner_gone else "")),
        *((name, str(run.error.get(name))) for name in ("what", "why", "fix") if run.error),
        ("steps", views.steps(run)),
        ("recipe", run.config_digest),
        ("created", views.local_time(run.created_at)),
        ("duration", views.duration(views.run_seconds(run, time.time()))),
        ("owner", f"process {run.owner.pid} on {run.owner.host}" if run.owner else None),
        ("folder", str(run_folder(run.id))),
        ("storage", run.storage_uri),
        ("resume", views.resume_command(run)),
    ]  # fmt: skip
    for name, value in facts:
        if value is not None:
            console.print(f"{name:<9} {value}", markup=False, highlight=False)


app.command("metrics")(run_charts.show_metrics)
app.command("logs")(run_logs.show_logs)


@app.command("stop")
def stop(
    run: RunArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the run has ended.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = 600,
    as_json: JsonOption = False,
) -> None:
    """Ask a run to save a checkpoint and end; the same command goes on with it later."""
    from raytrain.runs import views

    with opened_records() as records:
        record = records.run_with_prefix(run)
        if not records.request_stop(record.id):
            raise ConfigError(
                f"run {record.id} is not running",
                why=f"it is {record.label}",
                fix="`raytrain runs list --state running` shows what can be stopped",
            )
        record = records.get_run(record.id)
        deadline = time.monotonic() + timeout_s
        if wait and not as_json:
            stderr_console().print(f"waiting for {record.id} to save and end")
        while wait and record.state == "running":
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"run {record.id} has not stopped after {timeout_s:g} s",
                    why="it ends after the step that it is in, which is long, or its process hangs",
                    fix=f"look at `raytrain runs logs {record.id}`; the request stands",
                )
            time.sleep(_POLL_EVERY_S)
            record = records.get_run(record.id)

    def show(console: Console) -> None:
        if record.state == "running":
            console.print(f"{record.id} was asked to save and end", highlight=False)
        else:
            console.print(
                f"{record.id} has ended: {record.label}, step {views.steps(record)}", highlight=False
            )

    emit({"run": views.run_object(record)}, as_json, show)


app.command("compare")(run_charts.compare)
app.command("cost")(costs.show_costs)


@app.command("rebuild")
def rebuild(
    storage: Annotated[
        str | None, typer.Option(help="Where artifacts lie; default $RAYTRAIN_HOME/storage.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fill the records database from run folders and manifests; a damaged one is moved aside first."""
    from raytrain.runs.rebuild import rebuild as fill
    from raytrain.runs.records import open_records
    from raytrain.storage.database import (
        DamagedDatabaseError,
        check_database_whole,
        set_database_aside,
    )
    from raytrain.storage.section import StorageSection

    aside: Path | None = None
    try:
        records = open_records()
        check_database_whole(records.engine)
    except DamagedDatabaseError:
        aside = set_database_aside()
        records = open_records()
    result = fill(records, StorageSection(path=storage).location)
    records.close()

    def show(console: Console) -> None:
        if aside is not None:
            console.print(f"the damaged database was moved to {aside}")
        console.print(f"added {len(result.runs)} runs ({result.num_known_runs} were known already)")
        console.print(f"added {result.num_metric_rows} rows of metrics, {result.num_events} events")
        console.print(f"added {result.num_artifacts} artifacts")
        for place, reason in result.skipped.items():
            console.print(f"left out {place}: {reason}", markup=False)

    told: dict[str, Any] = {**vars(result), "moved_aside": str(aside) if aside else None}
    emit(told, as_json, show)


@app.command("migrate")
def migrate(as_json: JsonOption = False) -> None:
    """Bring the records database to this raytrain's tables, forward only; of a SQLite file those of searches alone
    need asking."""
    from raytrain.runs.schema import migrate as bring_up
    from raytrain.storage.database import open_database
    from raytrain.tuning.study_storage import upgrade_storage

    engine = open_database()
    result = bring_up(engine)
    engine.dispose()
    searches = upgrade_storage()

    def show(console: Console) -> None:
        for subject, one in (("the database", result), ("its part for searches", searches)):
            if one is not None and one.before == one.after:
                console.print(f"nothing to do: {subject} has schema {one.after}", highlight=False)
            elif one is not None:
                told = f"{subject}: from schema {one.before or 'none'} to {one.after}"
                console.print(told, highlight=False)

    emit({**vars(result), "searches": vars(searches) if searches else None}, as_json, show)

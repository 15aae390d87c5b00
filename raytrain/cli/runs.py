"""`raytrain runs`: what happened, what is going on, and how it went."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.runs.record_types import EventRecord, MetricPoint, RunRecord
    from raytrain.runs.records import Records

app = typer.Typer(
    help="Look at runs: list, follow, compare, stop.", no_args_is_help=True, rich_markup_mode=None
)

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or `latest`.")
]

_POLL_EVERY_S = 0.5
_CHARTED_BY_DEFAULT = ("train/loss", "eval/loss")


@contextmanager
def _opened_records() -> Iterator[Records]:
    from raytrain.runs.records import open_records

    records = open_records()
    try:
        yield records
    finally:
        records.close()


def _wide(console: Console) -> Console:
    """In a pipe or a file there is no screen to fit, and a cut id would be of no use."""
    if not console.is_terminal:
        console.width = 240
    return console


@app.command("list")
def list_runs(
    state: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="train, tune, …")] = None,
    name: Annotated[str | None, typer.Option(help="Part of the name.")] = None,
    since: Annotated[str | None, typer.Option(help="An age (90m, 36h, 2d) or a date.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most runs to show.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Runs to leave out first.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Runs that fit the filters, newest first."""
    from raytrain.runs import views
    from raytrain.runs.records import check_state

    now = time.time()
    with _opened_records() as records:
        page = records.list_runs(
            state=check_state(state) if state else None,
            kind=kind,
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
        _wide(console).print(views.runs_table(rows, now))
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

    with _opened_records() as records:
        record = records.run_with_prefix(run)
        metrics = {key: summarise(key, points) for key, points in records.metrics(record.id).items()}
        uses, events = records.artifacts(record.id), records.events(record.id)
        written = [use for use in uses if use.direction == "written"]
        result = next(
            (use for use in reversed(written) if use.role == "model"), written[-1] if written else None
        )
        lineage = records.lineage(result.digest) if result else None

    def show(console: Console) -> None:
        console = _wide(console)
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


@app.command("metrics")
def show_metrics(
    run: RunArgument,
    key: Annotated[
        list[str] | None, typer.Option(help="A metric, train/loss for one; may be repeated.")
    ] = None,
    since_step: Annotated[int | None, typer.Option(help="Leave out earlier steps.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the curves in the terminal.")] = False,
    png: Annotated[Path | None, typer.Option(help="Draw the curves into this PNG file.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a step, for other programs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """A run's time series: a summary, the values, a chart, a PNG, or CSV."""
    from raytrain.runs import views
    from raytrain.runs.compare import summarise

    if as_csv and as_json:
        raise ConfigError(
            "--csv and --json together", why="stdout holds one format", fix="leave one of them out"
        )
    with _opened_records() as records:
        record = records.run_with_prefix(run)
        series = records.metrics(record.id, None, since_step)
        known = series if since_step is None else records.latest_metrics(record.id)
    chosen = {one: series.get(one, []) for one in _check_keys(key, list(known))} if key else series
    charted = chosen if key else {one: series[one] for one in _CHARTED_BY_DEFAULT if one in series} or series
    if png is not None:
        _save_png(png, {one: {record.id: points} for one, points in charted.items()})
    if as_csv:
        _print_csv(chosen)
        return

    def show(console: Console) -> None:
        console = _wide(console)
        if not any(chosen.values()):
            console.print(f"run {record.id} has no metrics yet")
        elif plot:
            _plot(console, {one: {record.id: points} for one, points in charted.items()})
        else:
            console.print(
                views.metrics_table({one: summarise(one, points) for one, points in chosen.items() if points})
            )
        if png is not None:
            console.print(f"chart saved as {png}")

    found = {one: [views.point_object(point) for point in points] for one, points in chosen.items()}
    emit({"run_id": record.id, "metrics": found, "png": str(png) if png else None}, as_json, show)


def _check_keys(keys: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    from raytrain.config.recipe import nearest

    for key in keys:
        if key not in known:
            near = nearest(key, known)
            raise ConfigError(
                f"--key {key}: the run has no such metric",
                why=f"it has {', '.join(known) or 'none yet'}",
                fix=f"did you mean `{near}`?" if near else "name one of these",
            )
    return keys


def _print_csv(series: dict[str, list[MetricPoint]]) -> None:
    import csv

    by_step: dict[int, dict[str, float]] = {}
    for key, points in series.items():
        for point in points:
            by_step.setdefault(point.global_step, {})[key] = point.value
    writer = csv.DictWriter(sys.stdout, ["global_step", *series], restval="", lineterminator="\n")
    writer.writeheader()
    for step in sorted(by_step):
        writer.writerow({"global_step": step, **by_step[step]})


def _plot(console: Console, panels: dict[str, dict[str, list[MetricPoint]]]) -> None:
    from raytrain.runs.charts import draw_chart

    width = min(console.width, 100)
    for key, series in panels.items():
        points = {run_id: [(one.global_step, one.value) for one in found] for run_id, found in series.items()}
        # The chart carries its own escape codes, which rich must neither count nor change.
        print(draw_chart(key, points, width=width, colour=console.is_terminal))
        print()


def _save_png(path: Path, panels: dict[str, dict[str, list[MetricPoint]]]) -> None:
    from raytrain.runs.charts import save_chart

    points = {
        key: {run_id: [(one.global_step, one.value) for one in found] for run_id, found in series.items()}
        for key, series in panels.items()
        if any(series.values())
    }
    if not points:
        raise ConfigError(
            "there is nothing to draw", why="no metric was recorded yet", fix="wait for the first step"
        )
    save_chart(points, path)


@app.command("logs")
def show_logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines of the log.")] = None,
    as_json: JsonOption = False,
) -> None:
    """A run's events and its log."""
    from raytrain.runs import views
    from raytrain.runs.folder import LOG_FILE
    from raytrain.storage.home import run_folder

    if follow and as_json:
        raise ConfigError(
            "--follow and --json together", why="--json prints one object", fix="leave one of them out"
        )
    with _opened_records() as records:
        record = records.run_with_prefix(run)
        events = records.events(record.id)
        log = run_folder(record.id) / LOG_FILE
        lines, position = _read_log(log, tail)

        def show(console: Console) -> None:  # noqa: ARG001 - a log is printed as it is, without a console's wrapping
            for event in events:
                print(views.event_line(event))
            for line in lines:
                print(line)

        found = {"events": [views.event_object(event) for event in events], "log": lines}
        emit({"run_id": record.id, **found}, as_json, show)
        if follow:
            _follow(records, record.id, log, position, len(events))


def _read_log(log: Path, tail: int | None) -> tuple[list[str], int]:
    """The (last) lines, and the position after them."""
    if not log.is_file():
        return [], 0
    with log.open("rb") as stream:
        lines = deque(stream, maxlen=tail)
        return [line.decode(errors="replace").rstrip("\n") for line in lines], stream.tell()


def _follow(records: Records, run_id: str, log: Path, position: int, num_shown: int) -> None:
    from raytrain.runs import views

    while True:
        going_on = records.get_run(run_id).state in ("queued", "running")
        new: list[EventRecord] = records.events(run_id)[num_shown:]
        num_shown += len(new)
        for event in new:
            print(views.event_line(event))
        if log.is_file():
            with log.open("rb") as stream:
                stream.seek(position)
                sys.stdout.write(stream.read().decode(errors="replace"))
                position = stream.tell()
        sys.stdout.flush()
        if not going_on:
            return
        time.sleep(_POLL_EVERY_S)


@app.command("stop")
def stop(
    run: RunArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the run has ended.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = 600,
    as_json: JsonOption = False,
) -> None:
    """Ask a run to save a checkpoint and end; the same command goes on with it later."""
    from raytrain.runs import views

    with _opened_records() as records:
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


@app.command("compare")
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Two or more runs.")],
    key: Annotated[list[str] | None, typer.Option(help="Only these metrics; may be repeated.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the curves in the terminal.")] = False,
    png: Annotated[
        Path | None, typer.Option(help="Draw the curves over each other into this PNG file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What differs between runs: config key by key, last and best metrics, curves over each other."""
    from raytrain.runs import views
    from raytrain.runs.compare import config_differences, summarise

    with _opened_records() as records:
        found = {record.id: record for record in map(records.run_with_prefix, runs)}
        if len(found) < 2:
            raise ConfigError(
                "compare takes two runs or more", why=f"got {', '.join(found)}", fix="name another run"
            )
        series = {run_id: records.metrics(run_id) for run_id in found}
    keys = sorted({one for metrics in series.values() for one in metrics})
    if key:
        keys = list(_check_keys(key, keys))
    differences = config_differences({run_id: record.config for run_id, record in found.items()})
    summaries = {
        one: {run_id: summarise(one, metrics[one]) for run_id, metrics in series.items() if one in metrics}
        for one in keys
    }
    charted = [one for one in keys if key or one in _CHARTED_BY_DEFAULT] or keys
    panels = {one: {run_id: metrics.get(one, []) for run_id, metrics in series.items()} for one in charted}
    if png is not None:
        _save_png(png, panels)

    def show(console: Console) -> None:
        console = _wide(console)
        ids = list(found)
        facts = {
            "state": {run_id: record.label for run_id, record in found.items()},
            "steps": {run_id: views.steps(record) for run_id, record in found.items()},
        }
        told = {
            one: {run_id: str(value) for run_id, value in row.items()} for one, row in differences.items()
        }
        console.print(views.side_by_side("config", ids, {**facts, **told}))
        if not differences:
            console.print("the configs are the same")
        metrics = {
            one: {
                run_id: views.number(summary.last.value)
                + (
                    f" (best {views.number(summary.best.value)} at {summary.best.global_step})"
                    if summary.best
                    else ""
                )
                for run_id, summary in row.items()
            }
            for one, row in summaries.items()
        }
        console.print()
        console.print(views.side_by_side("last (best)", ids, metrics))
        if plot:
            _plot(console, panels)
        if png is not None:
            console.print(f"chart saved as {png}")

    emit(
        {
            "runs": [views.run_object(record) for record in found.values()],
            "config": differences,
            "metrics": {
                one: {
                    run_id: {
                        "last": views.point_object(summary.last),
                        "best": views.point_object(summary.best),
                    }
                    for run_id, summary in row.items()
                }
                for one, row in summaries.items()
            },
            "png": str(png) if png else None,
        },
        as_json,
        show,
    )


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
    from raytrain.storage.database import DamagedDatabaseError, set_database_aside
    from raytrain.storage.section import StorageSection

    aside: Path | None = None
    try:
        records = open_records()
        records.check_whole()
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

"""`raytrain runs metrics` and `runs compare`: time series as summaries, values, curves and CSV."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.recorded_runs import RunArgument, opened_records, wide
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.runs.compare import MetricSummary
    from raytrain.runs.record_types import MetricPoint, RunRecord

_CHARTED_BY_DEFAULT = ("train/loss", "eval/loss")


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
    with opened_records() as records:
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
        console = wide(console)
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

    with opened_records() as records:
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
        _show_comparison(wide(console), list(found.values()), differences, summaries)
        if plot:
            _plot(console, panels)
        if png is not None:
            console.print(f"chart saved as {png}")

    told = {
        one: {run_id: _summary_object(summary) for run_id, summary in row.items()}
        for one, row in summaries.items()
    }
    result = {
        "runs": [views.run_object(record) for record in found.values()],
        "config": differences,
        "metrics": told,
        "png": str(png) if png else None,
    }
    emit(result, as_json, show)


def _summary_object(summary: MetricSummary) -> dict[str, Any]:
    from raytrain.runs import views

    return {"last": views.point_object(summary.last), "best": views.point_object(summary.best)}


def _show_comparison(
    console: Console,
    runs: list[RunRecord],
    differences: dict[str, dict[str, Any]],
    summaries: dict[str, dict[str, MetricSummary]],
) -> None:
    """Two tables with a column for each run: what the configs differ in, and how far each metric came."""
    from raytrain.runs import views

    ids = [run.id for run in runs]
    facts = {
        "state": {run.id: run.label for run in runs},
        "steps": {run.id: views.steps(run) for run in runs},
    }
    told = {one: {run_id: str(value) for run_id, value in row.items()} for one, row in differences.items()}
    console.print(views.side_by_side("config", ids, {**facts, **told}))
    if not differences:
        console.print("the configs are the same")
    metrics = {
        one: {run_id: _last_and_best(summary) for run_id, summary in row.items()}
        for one, row in summaries.items()
    }
    console.print()
    console.print(views.side_by_side("last (best)", ids, metrics))


def _last_and_best(summary: MetricSummary) -> str:
    from raytrain.runs import views

    last = views.number(summary.last.value)
    best = summary.best
    return f"{last} (best {views.number(best.value)} at {best.global_step})" if best else last


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

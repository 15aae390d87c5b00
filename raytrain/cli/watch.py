"""`raytrain watch`: are the rows of now like those of then?"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.baseline import place_or_baseline, told_baselines
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.cli.repeating import repeated
from raytrain.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.monitoring.drift.golden import GoldenTrace
    from raytrain.monitoring.drift.judged import Judged
    from raytrain.monitoring.drift.watching import Look
    from raytrain.storage.artifact import Artifact

app = typer.Typer(help="Watch what is served, or any table, for drift.", no_args_is_help=True)

FileArgument = Annotated[
    Path, typer.Argument(metavar="WATCH", help="Watch file, such as jobs/watches/log.yaml.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as window.rows=500."),
]


@app.command("freeze")
def freeze(
    watch: FileArgument,
    overrides: OverridesArgument = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of a reference that is there already.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Freeze the rows that there are as the reference, which windows are held against from now on."""
    from raytrain.monitoring.drift.freezing import freeze as freeze_rows
    from raytrain.monitoring.drift.section import load_watch

    frozen = freeze_rows(load_watch(watch, overrides), now=time.time(), replace=replace)
    reference, artifact = frozen.reference, frozen.artifact
    told = {
        "reference": str(artifact.location),
        "digest": artifact.digest,
        "num_rows": reference.num_rows,
        "features": [asdict(one) for one in reference.features],
        "notes": list(frozen.notes),
    }

    def show(console: Console) -> None:
        _say(console, f"{reference.num_rows:,} rows, {len(reference.features)} features:")
        for one in reference.features:
            _say(console, f"  {one.name} ({one.kind})")
        for note in frozen.notes:
            _say(console, f"note: {note}")
        _say(console, f"reference {artifact.location}")
        _say(console, f"digest {artifact.digest}")

    emit(told, as_json, lambda console: show(wide(console)))
    return 0


@app.command("run")
def run(
    watch: FileArgument,
    overrides: OverridesArgument = None,
    every: Annotated[
        float | None, typer.Option(min=1.0, help="Look again so many seconds after each look, until Ctrl-C.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="File for Prometheus, such as FOLDER/raytrain.prom of node_exporter.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Judge each window that is whole and not judged yet; exit code 5 if one is an alarm.

    With --every it goes on, also where storage or database are away for a while; under --json it prints an object a
    line.
    """
    from raytrain.monitoring.drift.section import load_watch
    from raytrain.monitoring.drift.watching import look

    section = load_watch(watch, overrides)
    with opened_records() as records:

        def look_once() -> int:
            found = look(section, records, now=time.time(), tell=_progress(as_json or every is None))
            if metrics is not None and found.held_by is None:
                _write_metrics(section, metrics)
            emit(_told(found), as_json, partial(_show, found))
            return RefusedError.exit_code if found.alarms else 0

        return repeated(look_once, every, as_json)


@app.command("golden")
def golden(
    baseline: Annotated[
        str, typer.Argument(help="The golden set: name or place of a frozen baseline.")
    ] = "golden",
    reports: Annotated[
        str | None, typer.Option(help="Folder of golden reports; else golden/ in the storage.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Which answers to the golden set changed, since when, and under which digest: over all `raytrain check golden`."""
    from raytrain.monitoring.drift.golden import read_golden_reports, trace_changes
    from raytrain.storage.artifact import open_artifact
    from raytrain.storage.location import Location
    from raytrain.storage.section import StorageSection

    place = place_or_baseline(baseline)
    if place is None:
        raise ConfigError(
            f"{baseline} is no baseline",
            why=told_baselines(),
            fix="raytrain baseline freeze MODEL --suite SUITE",
        )
    folder = Location.parse(reports) if reports else StorageSection().location / "golden"
    trace = trace_changes(*read_golden_reports(folder, open_artifact(place, verify=False).digest))
    told = {
        "reports": [
            {name: value for name, value in asdict(one).items() if name != "changes"} for one in trace.reports
        ],
        "changed": [{**asdict(one), "lost": one.lost} for one in trace.changed],
        "recovered": list(trace.recovered),
        "notes": list(trace.notes),
    }
    emit(told, as_json, lambda console: _show_golden(wide(console), trace))
    return 0


def _progress(quiet: bool) -> Any:
    """Tells of each window when it is judged: a log that was left alone for long has many."""
    console = stderr_console()

    def tell(judged: Judged, artifact: Artifact) -> None:
        if not quiet:
            _say(console, f"window {judged.number} is judged: {artifact.location}")

    return tell


def _write_metrics(section: Any, path: Path) -> None:
    from raytrain.monitoring.drift.freezing import reference_place
    from raytrain.monitoring.drift.prometheus import write_metrics
    from raytrain.monitoring.drift.reference import open_reference
    from raytrain.monitoring.drift.report import read_reports
    from raytrain.monitoring.drift.watching import reports_folder

    found = read_reports(reports_folder(section, open_reference(reference_place(section))))
    if found:
        write_metrics(path, [report for report, _ in found])


def _told(found: Look) -> dict[str, Any]:
    from raytrain.monitoring.drift.report import record_of

    return {
        "run_id": found.run_id,
        "held_by": found.held_by,
        "num_judged": found.num_judged,
        "num_waiting": found.num_waiting,
        "alarms": found.alarms,
        "notes": list(found.notes),
        "reports": [
            {**_without_pictures(record_of(judged)), "report": str(one.location), "digest": one.digest}
            for judged, one in found.reports
        ],
    }


def _without_pictures(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "distributions"}


def _show(found: Look, console: Console) -> None:
    from raytrain.monitoring.drift.page import headline

    wide(console)
    if found.held_by is not None:
        _say(console, f"another watcher is at it: {found.held_by}")
        return
    for judged, artifact in found.reports:
        word = "ALARM" if judged.alarms else "no alarm"
        _say(console, f"window {judged.number}, {judged.num_rows:,} rows: {word}. {headline(judged)}")
        for why in judged.alarms:
            _say(console, f"  {why}")
        for told in judged.warnings:
            _say(console, f"  worth a look: {told}")
        for one in (judged.judgement.moved if judged.judgement is not None else [])[:5]:
            told = f"{one.distance} {one.value:.4g}, threshold {one.threshold:.4g}, p = {one.p_value:.3g}"
            _say(console, f"    {one.name}: {told}")
        _say(console, f"  report {artifact.location}/report.html")
    for note in found.notes:
        _say(console, f"note: {note}")
    _say(
        console,
        f"{found.num_judged:,} windows judged, {found.num_waiting:,} rows wait for theirs to be whole",
    )


def _show_golden(console: Console, trace: GoldenTrace) -> None:
    for one in trace.reports:
        word = "passed" if one.passed else "FAILED"
        _say(
            console, f"{one.at}  {one.subject[:19]}  {word}, {one.num_lost} lost, {len(one.changes)} changed"
        )
    for answer in trace.changed:
        word = "lost" if answer.lost else "won"
        since = f"since {answer.since} under {answer.subject[:19]}, {answer.num_reports} reports"
        _say(
            console,
            f"{word}: {answer.item_id} ({answer.suite}): {answer.before:g} to {answer.after:g}, {since}",
        )
    if trace.recovered:
        _say(console, f"recovered: {', '.join(trace.recovered)}")
    for note in trace.notes:
        _say(console, f"note: {note}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)

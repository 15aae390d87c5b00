"""`raytrain check golden`: does a version still answer what its golden set had right?"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.baseline import place_or_baseline, told_baselines
from raytrain.cli.evaluate import ProgressBars, SuiteOption, load_suites
from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit, exit_code_when_stopped, stderr_console
from raytrain.cli.recorded_runs import wide
from raytrain.cli.registry_place import PlaceOption, registry_of
from raytrain.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.results import Evaluation
    from raytrain.release.golden import Drift
    from raytrain.storage.artifact import Artifact
    from raytrain.storage.location import Location


def golden(
    model: Annotated[str, typer.Argument(help="NAME@VERSION, a bundle, or as for `raytrain evaluate`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for `raytrain evaluate`.")
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="The golden set: name or place of a frozen baseline.")
    ] = "golden",
    suite: SuiteOption = None,
    max_lost: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of its right answers that may be lost.")
    ] = 0.02,
    critical: Annotated[
        list[str] | None,
        typer.Option(help="A category of which none may be lost; may be given several times."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask the model again, also where it was asked before.")
    ] = False,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Put a golden set's items to a model again, item beside item; exit code 5 where too much was lost.

    Its suites are read from where they lay when it was frozen, or from --suite.
    """
    from raytrain.cli.ask import find_model
    from raytrain.evaluation.answering.settings import settings_from
    from raytrain.evaluation.evaluate import evaluate
    from raytrain.release.gate.evaluations import trained_digest
    from raytrain.release.golden import GoldenLimits, check_critical, find_drift
    from raytrain.release.runnable import find_runnable

    settings = settings_from(overrides or [])
    frozen, limits = _golden_set(baseline), GoldenLimits(max_lost, tuple(critical or ()))
    check_critical(frozen, limits)  # before the model is asked anything
    suites = load_suites(suite or _suite_files(frozen))
    asked = find_runnable(model, registry_of(place), ring_of(ring))
    with redirect_stdout(sys.stderr), ProgressBars(stderr_console(), quiet=as_json) as bars:
        result = evaluate(find_model(asked.reference), suites, settings, fresh=fresh, on_progress=bars.show)
    if result.evaluation is None:
        emit(result.as_dict(), as_json, lambda console: console.print(f"stopped by {result.stopped_by}"))
        return exit_code_when_stopped(result.stopped_by)
    subject = asked.subject or trained_digest(result.evaluation.report.model)
    if subject is None:
        raise ConfigError(
            f"{model} has no digest", why="it is an endpoint", fix="name the model that answers there"
        )
    drift = find_drift(frozen, result.evaluation, limits)
    written = _write(settings.storage.location, drift, frozen, result.evaluation, subject)
    told = {**drift.as_dict(), "subject": subject, "report": str(written.location), "digest": written.digest}
    refused = None if drift.passed else _refusal(model, drift)
    told |= {} if refused is None else {"error": refused.as_dict()}
    emit(told, as_json, lambda console: _show(wide(console), drift, written))
    return 0 if refused is None else refused.exit_code


def _golden_set(baseline: str) -> Evaluation:
    from raytrain.evaluation.results import open_evaluation

    where = place_or_baseline(baseline)
    if where is None:
        raise ConfigError(
            f"{baseline} is no baseline",
            why=told_baselines(),
            fix="raytrain baseline freeze MODEL --suite SUITE",
        )
    return open_evaluation(where)


def _write(storage: Location, drift: Drift, frozen: Evaluation, now: Evaluation, subject: str) -> Artifact:
    from raytrain.release.golden import golden_place, write_golden_report

    return write_golden_report(
        golden_place(storage, subject, frozen, now, drift.limits), drift, frozen, now, subject
    )


def _suite_files(frozen: Evaluation) -> list[Path]:
    found = frozen.artifact.manifest.provenance.get("suite_files") or {}
    return [Path(file) for file in found.values()]


def _refusal(model: str, drift: Drift) -> RefusedError:
    return RefusedError(
        f"{model} has drifted from its golden set",
        why=f"{drift.num_lost} of {drift.num_right} right answers lost, asked {drift.limit}: {drift.why}",
        fix="items.jsonl of the report holds what was lost; mend it, or freeze another golden set",
    )


def _show(console: Console, drift: Drift, written: Artifact) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raytrain.evaluation.decision.visible import visible

    table = Table(
        "suite", "item", "category", "before", "now", "answered before", "answers now", show_edge=False
    )
    for one in drift.changes[:20]:
        texts = (visible(text).replace("\n", " ")[:60] for text in (one.output_before, one.output_after))
        scores = (f"{one.before:g}", f"{one.after:g}")
        cells = (one.suite, one.item_id, one.category or "", *scores, *texts)
        table.add_row(*map(escape, cells), style="red" if one.lost else "green")
    if drift.changes:
        console.print(table)
    word, colour = ("PASSED", "green") if drift.passed else ("FAILED", "red")
    told = f"{drift.num_lost} of {drift.num_right} right answers lost ({drift.limit}); {drift.why}"
    console.print(f"[bold {colour}]check golden {word}[/]: {escape(told)}", highlight=False)
    console.print(f"report {written.location}", markup=False, highlight=False, soft_wrap=True)

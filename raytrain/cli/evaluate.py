"""`raytrain evaluate`: a model, an adapter, an endpoint or a file of outputs through suites of items."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from raytrain.cli.output import JsonOption, emit, exit_code_when_stopped, stderr_console
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.evaluate import EvaluateResult
    from raytrain.evaluation.items import Suite
    from raytrain.evaluation.report import SuiteReport
    from raytrain.evaluation.work import EvaluateProgress

SuiteOption = Annotated[
    list[Path] | None, typer.Option("--suite", help="YAML file of a suite; may be given several times.")
]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Run id, artifact, model or adapter, http:// endpoint, or .jsonl file of outputs."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For example scaling.num_workers=4."),
    ] = None,
    suite: SuiteOption = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (auto or host:port).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Evaluate anew instead of resuming.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Put the items of suites to a model. The same command again resumes, or tells what is done."""
    from raytrain.evaluation.answering.settings import settings_from

    settings = settings_from(overrides or [])
    suites = load_suites(suite)

    from raytrain.cli.ask import find_model
    from raytrain.evaluation.evaluate import evaluate as run_evaluation

    # What Ray and libraries print belongs beside the result, not into it.
    with redirect_stdout(sys.stderr), ProgressBars(stderr_console(), quiet=as_json) as bars:
        result = run_evaluation(
            find_model(model), suites, settings, address=address, fresh=fresh, on_progress=bars.show
        )
    emit(result.as_dict(), as_json, lambda console: show_result(console, result))
    return exit_code_when_stopped(result.stopped_by)


def load_suites(files: Sequence[Path] | None) -> list[Suite]:
    """Every suite with its items. Raises ConfigError or DataError with file, line and key of what is wrong."""
    from raytrain.evaluation.items import load_items
    from raytrain.evaluation.suite import load_suite

    if not files:
        raise ConfigError(
            "no suite is named",
            why="there is nothing to ask",
            fix="add --suite SUITE.yaml; docs/evaluation.md",
        )
    return [load_items(load_suite(file)) for file in files]


class ProgressBars:
    """One bar a suite on a terminal, elsewhere a line now and then; notes alone where it is quiet."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = console
        self._quiet = quiet
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, disable=quiet or not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, progress: EvaluateProgress) -> None:
        """Take one report of `evaluate`."""
        if progress.note is not None:
            told = f"{progress.suite}: {progress.note}" if progress.suite else progress.note
            self._console.print(f"  {told}", markup=False, highlight=False, soft_wrap=True)
            return
        if self._quiet:
            return
        if progress.suite not in self._tasks:
            self._tasks[progress.suite] = self._progress.add_task(progress.suite, total=progress.num_items)
        self._progress.update(self._tasks[progress.suite], completed=progress.num_done)
        share = progress.num_done / max(1, progress.num_items)
        if not self._console.is_terminal and (
            share == 1.0 or share - self._told.get(progress.suite, -1.0) >= 0.1
        ):
            self._told[progress.suite] = share
            told = f"  {progress.suite}: {progress.num_done} of {progress.num_items} items"
            self._console.print(told, highlight=False)


def show_result(console: Console, result: EvaluateResult) -> None:
    """Scores with their intervals, and what they rest on."""
    from rich.table import Table

    if result.evaluation is None:
        console.print(
            f"run {result.run_id} was stopped by {result.stopped_by}; the same command goes on with it"
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("suite", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("items", "value", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    report = result.evaluation.report
    for name, one in report.suites.items():
        for metric, value in one.metrics.items():
            interval = one.intervals.get(metric)
            told = "" if interval is None else f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
            shown = f"{value:.4g}" if interval is None else f"{100 * value:.1f} %"
            table.add_row(name, metric, str(one.num_items), shown, told)
    console.print(table)
    for one in report.suites.values():
        for note in notes_of(one):
            console.print(
                f"{one.name}: {note}", markup=False, highlight=False, style="yellow", soft_wrap=True
            )
    before = " (was there already; --fresh evaluates anew)" if result.was_done_before else ""
    console.print(f"run {result.run_id}{before}", highlight=False, soft_wrap=True)
    console.print(f"evaluation {result.evaluation.artifact.location}", highlight=False, soft_wrap=True)


def notes_of(report: SuiteReport) -> list[str]:
    """What a reader of the score should know."""
    told = {
        "items have no score and count as 0; their records say why": report.num_failed,
        "answers are empty": report.num_empty,
        "answers end at generation.max_new_tokens": report.num_cut_short,
        "answers hang on a near-tie: another batch size or machine may answer otherwise": report.num_near_ties
        or 0,
    }
    return [f"{count} of {report.num_items} {text}" for text, count in told.items() if count]

"""`raytrain run`: a recipe from its rows to a decision."""

from __future__ import annotations

import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from raytrain.cli.costs import YesOption, confirm_cost, confirm_forecast, num_runs_of
from raytrain.cli.output import JsonOption, VerboseOption, emit, exit_code_when_stopped, stderr_console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.table import Table

    from raytrain.data.prepare import PrepareProgress
    from raytrain.evaluation.work import EvaluateProgress
    from raytrain.pipeline.recipe import PipelineResult, StepResult
    from raytrain.tuning.forecast import Forecast

_TITLES = {
    "rows": "what came since is written down",
    "prepare": "the rows are prepared",
    "check": "the recipe is checked",
    "tune": "better values are searched for",
    "train": "it is trained",
    "baseline": "the baseline answers",
    "evaluate": "what was trained answers",
    "compare": "both are compared",
    "release": "what was trained becomes a version",
    "staging": "the gate to staging",
    "canary": "it is asked beside production",
    "production": "the gate to production",
}


def run_recipe(
    recipe: Annotated[Path, typer.Argument(help="The YAML recipe.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For example pipeline.check=false."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (auto or host:port).")] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Prepare, check, tune, train, evaluate and compare. The same command goes on where it was stopped.

    Exit code 5 where what was trained may not follow the baseline."""
    from raytrain.pipeline.section import load_pipeline

    loaded = load_pipeline(recipe, overrides)
    num_runs = num_runs_of("run", recipe, overrides)
    estimate = confirm_cost(loaded.spec, yes=yes, as_json=as_json, num_runs=num_runs)
    confirm = confirm_forecast(loaded.search, estimate, yes=yes, as_json=as_json)

    from raytrain.errors import RefusedError
    from raytrain.pipeline.recipe import run_recipe as run

    with (
        redirect_stdout(sys.stderr),
        StepsView(stderr_console(), quiet=as_json, verbose=verbose, confirm=confirm) as view,
    ):
        result = run(loaded, view, address=address, verbose=verbose)
    emit(result.as_dict(), as_json, lambda console: _show_result(console, result))
    if result.stopped_by is not None:
        return exit_code_when_stopped(result.stopped_by) or 4
    return 0 if result.refusal is None else RefusedError.exit_code


class StepsView:
    """A heading for each step, below it what the step itself shows."""

    def __init__(
        self,
        console: Console,
        *,
        quiet: bool,
        verbose: bool,
        confirm: Callable[[Forecast], None] | None = None,
    ) -> None:
        from raytrain.cli.evaluate import ProgressBars
        from raytrain.cli.progress import ProgressView
        from raytrain.cli.tune_view import TuneView

        self._console, self._quiet = console, quiet
        self._stack = ExitStack()
        self._number = 0
        is_quiet = quiet and not verbose
        self.training = ProgressView(console, quiet=is_quiet)
        self.tuning = TuneView(console, quiet=is_quiet, confirm=confirm)
        self._new_bars: Callable[[], ProgressBars] = lambda: ProgressBars(console, quiet=quiet)
        self._bars = self._new_bars()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self, name: str) -> None:
        self._stack.close()
        self._number += 1
        if not self._quiet:
            self._console.print(f"[bold]{self._number}. {_TITLES[name]}[/]", highlight=False)
        self._bars = self._new_bars()
        shown: dict[str, AbstractContextManager[object]] = {
            "train": self.training, "tune": self.tuning, "baseline": self._bars, "evaluate": self._bars,
        }  # fmt: skip
        if name in shown:
            self._stack.enter_context(shown[name])

    def done(self, step: StepResult) -> None:
        self._stack.close()
        if not self._quiet:
            known = "known: " if step.was_known else ""
            self._console.print(f"   {known}{step.told}", markup=False, highlight=False, soft_wrap=True)

    def prepared(self, progress: PrepareProgress) -> None:
        if progress.note and not self._quiet:
            self._console.print(f"   {progress.note}", markup=False, highlight=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"   … {text}", markup=False, highlight=False, soft_wrap=True)

    checked = tell

    def answered(self, progress: EvaluateProgress) -> None:
        self._bars.show(progress)


def steps_table(steps: Sequence[StepResult]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("step", "", "what", "digest"):
        table.add_column(heading, overflow="fold")
    for step in steps:
        digest = (step.digest or "").removeprefix("sha256:")[:12]
        table.add_row(step.name, "known" if step.was_known else "made", Text(step.told), digest)
    return table


def _show_result(console: Console, result: PipelineResult) -> None:
    from raytrain.pipeline.recipe import page_of

    console.print(steps_table(result.steps))
    if result.stopped_by is not None:
        console.print(f"stopped by {result.stopped_by}; the same command goes on with it", highlight=False)
    if result.refusal is not None:
        why = result.refusal.why
        console.print(f"not promoted: {why}", markup=False, highlight=False, soft_wrap=True)
    if (page := page_of(result)) is not None:
        console.print(f"decision: {page}", markup=False, highlight=False, soft_wrap=True)

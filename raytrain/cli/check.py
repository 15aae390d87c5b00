"""`raytrain check`: prove things about a recipe before, or instead of, believing them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.export import check_export
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.recorded_runs import wide

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.training.checks.verdict import Tell, Verdict
    from raytrain.training.support import SupportRow

app = typer.Typer(
    help="Prove that a recipe computes, resumes and repeats as it should. Exit code 5 where it does not.",
    no_args_is_help=True,
)

app.command("export")(check_export)

RecipeArgument = Annotated[Path, typer.Argument(help="The YAML recipe.")]
OverridesArgument = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]


@app.command()
def loss(recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> int:
    """One batch through every accumulation, layout, strategy and one or two workers: the same loss and gradients?"""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)

    from raytrain.training.checks.loss import check_loss

    return _run(lambda tell: check_loss(spec, tell), as_json)


@app.command()
def resume(recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> int:
    """A straight run against one killed mid-epoch, mid-accumulation and mid-save: bit for bit the same?"""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)

    from raytrain.training.checks.resume import check_resume

    return _run(lambda tell: check_resume(spec, tell), as_json)


@app.command()
def overfit(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to learn by heart.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Give up after so many optimizer steps.")] = 200,
    as_json: JsonOption = False,
) -> int:
    """A few rows learnt by heart: does the loss go to zero, and do the answers become the rows' own?"""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)

    from raytrain.training.checks.overfit import check_overfit

    return _run(lambda tell: check_overfit(spec, tell, num_rows=rows, most_steps=steps), as_json)


@app.command()
def reproducibility(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    runs: Annotated[int, typer.Option(min=2, help="How often the same run is made.")] = 5,
    plot: Annotated[
        Path | None, typer.Option(help="PNG of the curves; else below RAYTRAIN_HOME/checks.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """The same seed several times, each in new processes: the same curve?"""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)

    from raytrain.training.checks.reproducibility import check_reproducibility

    return _run(lambda tell: check_reproducibility(spec, tell, num_runs=runs, plot=plot), as_json)


@app.command()
def pipeline(recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> int:
    """All of these at small scale, and what the runs leave behind: the gate before a long run. Writes a report."""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)

    from raytrain.training.checks.pipeline import check_pipeline

    return _run(lambda tell: check_pipeline(spec, tell), as_json)


@app.command()
def support(as_json: JsonOption = False) -> None:
    """Print which strategy works with what, and why where it does not; a recipe is held against this table."""
    from dataclasses import asdict

    from raytrain.training.support import STRATEGIES, support_rows

    rows = support_rows()
    result = {"strategies": list(STRATEGIES), "rows": [asdict(row) for row in rows]}
    emit(result, as_json, lambda output: _show_support(wide(output), rows))


def _show_support(console: Console, rows: list[SupportRow]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raytrain.training.support import STRATEGIES

    signs = {"tested": "[green]✓[/]", "not tested": "[yellow]?[/]", "refused": "[red]✗[/]"}
    reasons: dict[tuple[str, str], list[str]] = {}
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in STRATEGIES:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(escape(row.feature), *(signs[row.cells[name].status] for name in STRATEGIES))
        for name in STRATEGIES:
            cell = row.cells[name]
            if cell.reason:
                reasons.setdefault((row.feature, f"{cell.status}: {cell.reason}"), []).append(name)
    console.print(table)
    console.print("✓ tested   ? not tested   ✗ refused when the recipe is checked", highlight=False)
    for (feature, reason), names in reasons.items():
        told = f"  · {feature} with {', '.join(names)}: {reason}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def _run(check: Callable[[Tell], Verdict], as_json: bool) -> int:
    from rich.markup import escape

    from raytrain.errors import IntegrityError

    console = stderr_console()

    def tell(text: str) -> None:
        if not as_json:
            console.print("  [dim]…[/]", escape(text), highlight=False, soft_wrap=True)

    with redirect_stdout(sys.stderr):
        verdict = check(tell)
    emit(verdict.as_dict(), as_json, lambda output: _show(wide(output), verdict))
    return 0 if verdict.passed else IntegrityError.exit_code


def _show(console: Console, verdict: Verdict) -> None:
    from rich.markup import escape
    from rich.table import Table

    signs = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "skipped": "[yellow]–[/]"}
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("checked", overflow="fold")
    measured = _columns(verdict)
    for title in measured.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in verdict.findings:
        numbers = (_number(finding.figures.get(key)) for key in measured)
        table.add_row(signs[finding.status], escape(finding.name), *numbers, escape(finding.what))
    console.print(table)
    for note in verdict.notes:
        console.print(f"  · {note}", markup=False, highlight=False)
    for name, place in verdict.files.items():
        console.print(f"  {name}: {place}", markup=False, highlight=False, soft_wrap=True)
    error = verdict.error()
    if error is not None:
        console.print(f"  fix: {error.fix}", markup=False, highlight=False)
    colour = "green" if verdict.passed else "red"
    console.print(f"[bold {colour}]{verdict.line}[/], {verdict.seconds:.0f} s", highlight=False)


def _columns(verdict: Verdict) -> dict[str, str]:
    """Figures that deserve a column of their own: those of `check loss`."""
    titles = {"loss_difference": "loss", "cosine": "cosine", "max_difference": "largest"}
    return titles if any("cosine" in finding.figures for finding in verdict.findings) else {}


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:.6f}" if 0.9 < value <= 1.0 else f"{value:.1e}"

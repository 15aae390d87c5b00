"""`raytrain baseline`: freeze what a model can do, and find out later whether anything about it has changed."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.evaluate import ProgressBars, SuiteOption, load_suites, show_result
from raytrain.cli.output import JsonOption, emit, exit_code_when_stopped, stderr_console
from raytrain.cli.recorded_runs import wide
from raytrain.errors import IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.baseline import Finding

app = typer.Typer(help="Freeze baselines that candidates are judged against.", no_args_is_help=True)


@app.command("freeze")
def freeze(
    model: Annotated[str, typer.Argument(help="As for `raytrain evaluate`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for `raytrain evaluate`.")
    ] = None,
    suite: SuiteOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the baseline; by default that of the evaluation's run.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (auto or host:port).")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Evaluate anew instead of taking what is there.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Evaluate a model, or take its evaluation that is there, and freeze it. Frozen twice, it is the same artifact."""
    from raytrain.evaluation.answering.settings import settings_from

    settings = settings_from(overrides or [])
    suites = load_suites(suite)

    from raytrain.cli.ask import find_model
    from raytrain.evaluation.baseline import baseline_place
    from raytrain.evaluation.baseline import freeze as freeze_evaluation
    from raytrain.evaluation.evaluate import evaluate

    if name is not None:
        baseline_place(settings.storage.location, name)
    with redirect_stdout(sys.stderr), ProgressBars(stderr_console(), quiet=as_json) as bars:
        result = evaluate(
            find_model(model), suites, settings, address=address, fresh=fresh, on_progress=bars.show
        )
    if result.evaluation is None:
        emit(result.as_dict(), as_json, lambda console: show_result(console, result))
        return exit_code_when_stopped(result.stopped_by)
    place = baseline_place(settings.storage.location, name or result.run_id)
    frozen = freeze_evaluation(result.evaluation, place)
    told = {**result.as_dict(), "baseline": str(place), "baseline_digest": frozen.digest}

    def show(console: Console) -> None:
        show_result(console, result)
        console.print(f"baseline {place}", highlight=False, soft_wrap=True)
        console.print(f"digest {frozen.digest}", highlight=False, soft_wrap=True)

    emit(told, as_json, show)
    return 0


@app.command("verify")
def verify(
    baseline: Annotated[str, typer.Argument(help="Folder or URI of a baseline.")],
    suite: Annotated[
        list[Path] | None,
        typer.Option(
            "--suite", help="A suite's file as it stands now; else its rows are read from where they lay."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Hash everything that a baseline consists of and rests on, and name what has changed; exit code 5 if anything."""
    from raytrain.evaluation.baseline import verify as verify_baseline
    from raytrain.storage.location import Location

    found = verify_baseline(Location.parse(baseline), load_suites(suite) if suite else ())
    changed = [one for one in found if one.standing == "changed"]
    is_known = all(one.standing != "not reached" for one in found)
    told = {
        "baseline": baseline,
        "whole": False if changed else True if is_known else None,
        "findings": [asdict(one) for one in found],
    }
    emit(told, as_json, lambda console: _show_findings(console, found))
    return IntegrityError.exit_code if changed else 0


_STYLES = {"same": "green", "changed": "red", "not reached": "yellow"}


def _show_findings(console: Console, found: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for is_word in (True, False, False):
        table.add_column(no_wrap=is_word, overflow="fold")
    for one in found:
        table.add_row(Text(one.standing, style=_STYLES[one.standing]), Text(one.thing), Text(one.detail))
    wide(console).print(table)

"""`raytrain train`: a recipe to a trained adapter."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from raytrain.cli.config import check_search
from raytrain.cli.costs import YesOption, confirm_cost
from raytrain.cli.output import JsonOption, VerboseOption, emit, exit_code_when_stopped, stderr_console


def train(
    recipe: Annotated[Path, typer.Argument(help="The YAML recipe; jobs/ holds some to start from.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For example train.learning_rate=1e-4."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (auto or host:port).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of resuming this run.")] = False,
    run_id: Annotated[
        str | None, typer.Option(help="Resume or name this run instead of the recipe's own.")
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Train as the recipe says. The same command again resumes, or tells the result of a run that is done."""
    from raytrain.training.spec import load_spec

    spec = load_spec(recipe, overrides)
    searched = check_search(recipe, overrides)
    if searched:
        stderr_console().print(
            f"  [yellow]·[/] training with the recipe's own {', '.join(searched)}: "
            "`raytrain tune` searches for better ones"
        )
    confirm_cost(spec, yes=yes, as_json=as_json)

    from raytrain.cli.progress import ProgressView
    from raytrain.training.trainer import train as run_training

    # Ray prints the deaths of workers to stdout, from a thread of its own; stdout is for the result alone.
    with (
        redirect_stdout(sys.stderr),
        ProgressView(stderr_console(), quiet=as_json and not verbose) as view,
    ):
        result = run_training(
            spec, address=address, fresh=fresh, run_id=run_id, observer=view, verbose=verbose
        )

    def show(console: object) -> None:
        from raytrain.cli.progress import show_result

        show_result(console, result)  # type: ignore[arg-type]

    emit(result.as_dict(), as_json, show)
    return exit_code_when_stopped(result.stopped_by)

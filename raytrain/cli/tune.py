"""`raytrain tune`: the best values of some keys of a recipe, within a budget."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from raytrain.cli.costs import YesOption, confirm_cost, confirm_forecast, num_runs_of
from raytrain.cli.output import JsonOption, VerboseOption, emit, exit_code_when_stopped, stderr_console

_DASHBOARD = "dashboard"


def tune(
    recipe: Annotated[
        Path, typer.Argument(help="The YAML recipe, with a section `search:`; `dashboard` opens Optuna's.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For example search.num_trials=40."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (auto or host:port).")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Search anew instead of going on with this search.")
    ] = False,
    yes: YesOption = False,
    port: Annotated[int, typer.Option(help="Of `raytrain tune dashboard`.")] = 8080,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Search for the best values of some keys. The same command goes on with its search, also after a kill."""
    if str(recipe) == _DASHBOARD and not recipe.exists():
        from raytrain.tuning.dashboard import serve_dashboard

        serve_dashboard(port, stderr_console().print)
        return 0

    from raytrain.tuning.spec import load_tune_recipe

    loaded = load_tune_recipe(recipe, overrides)
    num_runs = num_runs_of("tune", recipe, overrides)
    estimate = confirm_cost(loaded.spec, yes=yes, as_json=as_json, num_runs=num_runs)
    confirm = confirm_forecast(loaded, estimate, yes=yes, as_json=as_json)

    from raytrain.cli.tune_view import TuneView, show_result
    from raytrain.tuning.search import tune as run_search

    with (
        redirect_stdout(sys.stderr),
        TuneView(stderr_console(), quiet=as_json and not verbose, confirm=confirm) as view,
    ):
        result = run_search(loaded, address=address, fresh=fresh, observer=view, verbose=verbose)
    emit(result.as_dict(), as_json, lambda console: show_result(console, result))
    return exit_code_when_stopped(
        result.stopped_by or (result.ended_by if result.state == "cancelled" else None)
    )

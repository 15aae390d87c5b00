"""`raytrain baseline`: freeze what a model can do, and find out later whether anything about it has changed."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.evaluate import ProgressBars, SuiteOption, load_suites, show_result
from raytrain.cli.output import JsonOption, emit, exit_code_when_stopped, stderr_console
from raytrain.cli.recorded_runs import wide
from raytrain.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.evaluation.baseline import Finding
    from raytrain.storage.location import Location

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
    frozen = freeze_evaluation(result.evaluation, place, suites)
    told = {**result.as_dict(), "baseline": str(place), "baseline_digest": frozen.digest}

    def show(console: Console) -> None:
        show_result(console, result)
        console.print(f"baseline {place}", highlight=False, soft_wrap=True)
        console.print(f"digest {frozen.digest}", highlight=False, soft_wrap=True)

    emit(told, as_json, show)
    return 0


@app.command("verify")
def verify(
    baseline: Annotated[str, typer.Argument(help="Folder, URI or name of a baseline.")],
    suite: Annotated[
        list[Path] | None,
        typer.Option("--suite", help="A suite's file where it lies now; else it is read from where it lay."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Hash everything that a baseline consists of and rests on, and name what has changed; exit code 5 if anything, or
    if something that has a digest could not be verified."""
    from raytrain.evaluation.baseline import verify as verify_baseline

    place = place_or_baseline(baseline)
    if place is None:
        raise ConfigError(
            f"`{baseline}` is no baseline",
            why=f"no such place exists, and {told_baselines()}",
            fix="give the name of one, or the place that `raytrain baseline freeze` printed",
        )
    found = verify_baseline(place, load_suites(suite) if suite else ())
    standings = {one.standing for one in found}
    told: dict[str, Any] = {
        "baseline": str(place),
        "whole": False if "changed" in standings else True if standings == {"same"} else None,
        "findings": [asdict(one) for one in found],
    }
    failed = _failure(found)
    if failed is not None:
        told["error"] = failed.as_dict()
    emit(told, as_json, lambda console: _show_findings(console, found, failed))
    return 0 if failed is None else failed.exit_code


def place_or_baseline(reference: str) -> Location | None:
    """The place that is named, or that of the baseline of this name in the storage; None where it is neither."""
    from raytrain.evaluation.baseline import find_baseline
    from raytrain.storage.location import Location
    from raytrain.storage.named_places import place_of_artifact
    from raytrain.storage.section import StorageSection

    if "://" in reference or (reference and Location.parse(reference).exists()):
        return place_of_artifact(reference)
    return find_baseline(StorageSection().location, reference)


def told_baselines() -> str:
    """The names that `place_or_baseline` knows, for an error."""
    from raytrain.evaluation.baseline import baseline_names
    from raytrain.storage.section import StorageSection

    storage = StorageSection().location
    names = baseline_names(storage)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"of baselines there are {', '.join(names[:20]) or 'none'}{more} in {storage}"


def _failure(found: list[Finding]) -> IntegrityError | None:
    """None where everything that has a digest is as it was."""
    changed = [one.thing for one in found if one.standing == "changed"]
    if changed:
        return IntegrityError(
            "the baseline is not what was frozen",
            why=f"changed: {', '.join(changed)}",
            fix="bring back what was there, or freeze a baseline of another name",
        )
    gone = [one.thing for one in found if one.standing == "not reached"]
    if gone:
        return IntegrityError(
            "the baseline could not be verified",
            why=f"not reached: {', '.join(gone)}",
            fix="bring back what was there; of a suite that was moved, name the file with --suite",
        )
    return None


_STYLES = {"same": "green", "changed": "red", "not reached": "red", "no digest": "yellow"}


def _show_findings(console: Console, found: list[Finding], failed: IntegrityError | None) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for is_word in (True, False, False):
        table.add_column(no_wrap=is_word, overflow="fold")
    for one in found:
        table.add_row(Text(one.standing, style=_STYLES[one.standing]), Text(one.thing), Text(one.detail))
    wide(console).print(table)
    if failed is not None:
        told = f"{failed.what}; {failed.fix}"
        console.print(told, style="bold red", markup=False, highlight=False, soft_wrap=True)

"""`raytrain registry doctor`, `gc` and `publish`: what is left over, and what others are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.registry_place import PlaceOption, registry_there
from raytrain.errors import IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.findings import Fault, Orphan
    from raytrain.release.registry.registry import Registry

MlflowOption = Annotated[
    str | None, typer.Option("--mlflow", help="Tracking server or store, as MLflow takes it.")
]


def doctor(place: PlaceOption = None, mlflow: MlflowOption = None, as_json: JsonOption = False) -> int:
    """Find what killed writers left: it takes room, and means nothing. `raytrain registry gc` deletes it.

    Exit code 5 if a journal, a record or an approval cannot be read. With --mlflow also in what MLflow differs;
    `raytrain registry publish` makes it alike.
    """
    registry, faults = registry_there(place), list["Fault"]()
    orphans = registry.orphans(faults.append)
    drift = [] if mlflow is None else _drift(registry, mlflow)

    def show(console: Console) -> None:
        for one in orphans:
            _print(console, _with_age(one))
        _show_faults(console, orphans, faults)
        for told in drift:
            _print(console, told)

    told = {"orphans": [asdict(one) for one in orphans], "faults": [asdict(one) for one in faults]}
    emit(told | ({"drift": drift} if mlflow else {}), as_json, show)
    return IntegrityError.exit_code if faults else 0


def publish(
    mlflow: Annotated[str, typer.Option("--mlflow", help="Tracking server or store, as MLflow takes it.")],
    names: Annotated[list[str] | None, typer.Argument(help="Names; by default all.")] = None,
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show versions, metrics, lineage, tags and aliases in MLflow as well: a mirror, the journal is what counts."""
    from raytrain.release.registry.mlflow_mirror import MlflowMirror

    registry, mirror = registry_there(place), MlflowMirror(mlflow)
    done = [what for name in names or registry.names() for what in mirror.follow(registry, name)]

    def show(console: Console) -> None:
        for one in done:
            console.print(f"done: {one}", highlight=False, soft_wrap=True, markup=False)
        if not done:
            console.print("MLflow says the same already")

    emit({"mlflow": mlflow, "done": done}, as_json, show)
    return 0


def collect(
    place: PlaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    grace_minutes: Annotated[
        float, typer.Option(min=0, help="Spare what somebody wrote to within so many minutes.")
    ] = 60,
    as_json: JsonOption = False,
) -> int:
    """Delete what `doctor` finds: bundles that no entry names, records that nobody signed, and files that were not
    finished. Versions stay, and so does what is young: somebody may be about to register it."""
    registry, faults, grace_s = registry_there(place), list["Fault"](), grace_minutes * 60
    orphans = registry.orphans(faults.append)
    if dry_run:
        chosen = [one for one in orphans if one.age_s >= grace_s]
    else:
        chosen = registry.delete(orphans, grace_s=grace_s)
    done = "to be deleted" if dry_run else "deleted"

    def show(console: Console) -> None:
        for one in orphans:
            _print(console, f"{done if one in chosen else 'spared'} {_with_age(one)}")
        _show_faults(console, orphans, faults)

    told = {
        "orphans": [asdict(one) for one in orphans],
        "deleted": [] if dry_run else [one.place for one in chosen],
        "spared": [one.place for one in orphans if one not in chosen],
        "faults": [asdict(one) for one in faults],
    }
    emit(told, as_json, show)
    return IntegrityError.exit_code if faults else 0


def _with_age(orphan: Orphan) -> str:
    return f"{orphan.place} (written to {timedelta(seconds=round(orphan.age_s))} ago)"


def _show_faults(console: Console, orphans: Sequence[Orphan], faults: Sequence[Fault]) -> None:
    if not orphans and not faults:
        _print(console, "nothing was left by anybody")
    for one in faults:
        _print(console, f"{one.name}, {one.thing}: {one.what}")


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _drift(registry: Registry, mlflow: str) -> list[str]:
    from raytrain.release.registry.mlflow_mirror import MlflowMirror

    mirror = MlflowMirror(mlflow)
    return [one for name in registry.names() for one in mirror.drift(registry, name)]

"""`raytrain registry doctor`, `gc` and `publish`: what is left over, and what others are shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.registry_place import PlaceOption, registry_of

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.registry import Registry

MlflowOption = Annotated[
    str | None, typer.Option("--mlflow", help="Tracking server or store, as MLflow takes it.")
]


def doctor(place: PlaceOption = None, mlflow: MlflowOption = None, as_json: JsonOption = False) -> int:
    """Find what killed writers left: it takes room, and means nothing. `raytrain registry gc` deletes it.

    With --mlflow also in what MLflow differs; `raytrain registry publish` makes it alike.
    """
    return _orphans(place, delete=False, mlflow=mlflow, as_json=as_json)


def publish(
    mlflow: Annotated[str, typer.Option("--mlflow", help="Tracking server or store, as MLflow takes it.")],
    names: Annotated[list[str] | None, typer.Argument(help="Names; by default all.")] = None,
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show versions, metrics, lineage, tags and aliases in MLflow as well: a mirror, the journal is what counts."""
    from raytrain.release.registry.mirror import follow
    from raytrain.release.registry.mlflow_mirror import MlflowMirror

    registry, mirror = registry_of(place), MlflowMirror(mlflow)
    done = [what for name in names or registry.names() for what in follow(mirror, registry, name)]

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
    as_json: JsonOption = False,
) -> int:
    """Delete what `doctor` finds: bundles that no entry names, and files that were not finished. Versions stay."""
    return _orphans(place, delete=not dry_run, as_json=as_json)


def _orphans(place: str | None, *, delete: bool, as_json: bool, mlflow: str | None = None) -> int:
    registry = registry_of(place)
    orphans = registry.orphans()
    if delete:
        registry.delete(orphans)
    drift = [] if mlflow is None else _drift(registry, mlflow)

    def show(console: Console) -> None:
        for one in orphans:
            console.print(f"{'deleted ' if delete else ''}{one.place}", highlight=False, soft_wrap=True)
        if not orphans:
            console.print("nothing was left by anybody")
        for told in drift:
            console.print(told, highlight=False, soft_wrap=True, markup=False)

    told = {"orphans": [asdict(one) for one in orphans], "deleted": delete}
    emit(told | ({"drift": drift} if mlflow else {}), as_json, show)
    return 0


def _drift(registry: Registry, mlflow: str) -> list[str]:
    from raytrain.release.registry.mirror import drift
    from raytrain.release.registry.mlflow_mirror import MlflowMirror

    mirror = MlflowMirror(mlflow)
    return [one for name in registry.names() for one in drift(mirror, registry, name)]

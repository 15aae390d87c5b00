"""`raytrain registry doctor`, `gc` and `publish`: what is left over, and what others are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.registry_place import PlaceOption, registry_of
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.mirror import Mirror
    from raytrain.release.registry.registry import Registry

MlflowOption = Annotated[
    str | None, typer.Option("--mlflow", help="Tracking server or store, as MLflow takes it.")
]
WandbOption = Annotated[str | None, typer.Option("--wandb", help="ENTITY/PROJECT at Weights & Biases.")]


def doctor(
    place: PlaceOption = None,
    mlflow: MlflowOption = None,
    wandb: WandbOption = None,
    as_json: JsonOption = False,
) -> int:
    """Find what killed writers left: it takes room, and means nothing. `raytrain registry gc` deletes it.

    With --mlflow or --wandb also in what that mirror differs; `raytrain registry publish` makes it alike.
    """
    return _orphans(place, _mirrors(mlflow, wandb), delete=False, as_json=as_json)


def publish(
    names: Annotated[list[str] | None, typer.Argument(help="Names; by default all.")] = None,
    mlflow: MlflowOption = None,
    wandb: WandbOption = None,
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show versions, metrics, lineage, tags and aliases in MLflow or W&B as well: the journal is what counts.

    With WANDB_MODE=offline it writes them as files that `wandb sync` uploads.
    """
    from raytrain.release.registry.mirror import follow
    from raytrain.release.registry.wandb_mirror import WandbMirror

    registry, mirrors = registry_of(place), _mirrors(mlflow, wandb)
    if not mirrors:
        raise ConfigError(
            "it is not said where to publish",
            why="neither --mlflow nor --wandb is there",
            fix="add --mlflow URI or --wandb ENTITY/PROJECT",
        )
    done: list[str] = []
    written: list[str] = []
    for mirror in mirrors:
        for name in names or registry.names():
            if isinstance(mirror, WandbMirror) and mirror.is_offline:
                written += mirror.write_files(registry, name)
            else:
                done += follow(mirror, registry, name)

    def show(console: Console) -> None:
        for one in done:
            console.print(f"done: {one}", highlight=False, soft_wrap=True, markup=False)
        for one in written:
            console.print(f"for `wandb sync`: {one}", highlight=False, soft_wrap=True, markup=False)
        if not done and not written:
            console.print(f"{' and '.join(one.label for one in mirrors)} says the same already")

    emit({"mlflow": mlflow, "wandb": wandb, "done": done, "written": written}, as_json, show)
    return 0


def collect(
    place: PlaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Delete what `doctor` finds: bundles that no entry names, and files that were not finished. Versions stay."""
    return _orphans(place, [], delete=not dry_run, as_json=as_json)


def _orphans(place: str | None, mirrors: Sequence[Mirror], *, delete: bool, as_json: bool) -> int:
    registry = registry_of(place)
    orphans = registry.orphans()
    if delete:
        registry.delete(orphans)
    drift = _drift(registry, mirrors)

    def show(console: Console) -> None:
        for one in orphans:
            console.print(f"{'deleted ' if delete else ''}{one.place}", highlight=False, soft_wrap=True)
        if not orphans:
            console.print("nothing was left by anybody")
        for told in drift:
            console.print(told, highlight=False, soft_wrap=True, markup=False)

    told = {"orphans": [asdict(one) for one in orphans], "deleted": delete}
    emit(told | ({"drift": drift} if mirrors else {}), as_json, show)
    return 0


def _mirrors(mlflow: str | None, wandb: str | None) -> list[Mirror]:
    from raytrain.release.registry.mlflow_mirror import MlflowMirror
    from raytrain.release.registry.wandb_mirror import WandbMirror

    found: list[Mirror] = []
    if mlflow is not None:
        found.append(MlflowMirror(mlflow))
    if wandb is not None:
        found.append(WandbMirror(wandb))
    return found


def _drift(registry: Registry, mirrors: Sequence[Mirror]) -> list[str]:
    from raytrain.release.registry.mirror import drift

    return [one for mirror in mirrors for name in registry.names() for one in drift(mirror, registry, name)]

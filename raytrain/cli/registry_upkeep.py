"""`raytrain registry doctor`, `gc` and `publish`: what is left over, and what others are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.registry_place import PlaceOption, registry_there
from raytrain.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.findings import Fault, Orphan
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

    Exit code 5 if a journal, a record or an approval cannot be read. With --mlflow or --wandb also in what that mirror
    differs; `raytrain registry publish` makes it alike.
    """
    registry, faults = registry_there(place), list["Fault"]()
    orphans = registry.orphans(faults.append)
    mirrors = _mirrors(mlflow, wandb)
    drift = _drift(registry, mirrors)

    def show(console: Console) -> None:
        for one in orphans:
            _print(console, _with_age(one))
        _show_faults(console, orphans, faults)
        for told in drift:
            _print(console, told)

    told = {"orphans": [asdict(one) for one in orphans], "faults": [asdict(one) for one in faults]}
    emit(told | ({"drift": drift} if mirrors else {}), as_json, show)
    return IntegrityError.exit_code if faults else 0


def publish(
    names: Annotated[list[str] | None, typer.Argument(help="Names; by default all.")] = None,
    mlflow: MlflowOption = None,
    wandb: WandbOption = None,
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show versions, metrics, lineage, tags and aliases in MLflow or W&B as well: the journal is what counts.

    A registry in MLflow is shown in the pages of its own server, if nothing else is said. With WANDB_MODE=offline it
    writes them as files that `wandb sync` uploads.
    """
    from raytrain.release.registry.mirror import follow
    from raytrain.release.registry.mlflow_store import MlflowStore
    from raytrain.release.registry.wandb_mirror import WandbMirror

    registry = registry_there(place)
    if mlflow is None and wandb is None and isinstance(registry.store, MlflowStore):
        mlflow = registry.store.server.uri
    mirrors = _mirrors(mlflow, wandb)
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

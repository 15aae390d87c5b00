"""`raytrain registry`: what was released under which version, and whether it still is what it was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit
from raytrain.errors import IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.registry import Registry
    from raytrain.release.registry.state import Released, State

app = typer.Typer(help="Versions of what was released.", no_args_is_help=True)

PlaceOption = Annotated[
    Path | None, typer.Option("--registry", help="Folder of the registry; by default RAYTRAIN_HOME/registry.")
]
ReferenceArgument = Annotated[str, typer.Argument(help="NAME@VERSION or NAME@ALIAS.")]


@app.command("add")
def add(
    reference: Annotated[
        str,
        typer.Argument(help="NAME, or NAME@VERSION; without a version the next one, by what has changed."),
    ],
    artifact: Annotated[Path, typer.Argument(help="Folder of a signed artifact.")],
    why: Annotated[str, typer.Option(help="What is new; it stands in the journal.")],
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Release a signed artifact under a version, which never changes afterwards.

    Another base model or tokenizer makes a major version, other rows or another recipe a minor one, another seed a
    patch.
    """
    from raytrain.release.ingredients import ingredients_of
    from raytrain.release.registry.versions import Version, next_version
    from raytrain.storage.artifact import open_artifact
    from raytrain.storage.location import Location

    registry = _registry(place)
    name, _, wanted = reference.partition("@")
    made_from = ingredients_of(open_artifact(Location(str(artifact.absolute())), verify=False))
    if wanted:
        version = Version.parse(wanted)
    else:
        released = registry.released(name)
        version = next_version([(one.version, one.made_from) for one in released], made_from)
    found = registry.register(name, version, artifact.absolute(), ring_of(ring), made_from=made_from, why=why)
    told = {"name": name, **_object(found)}
    emit(told, as_json, lambda console: console.print(f"{name}@{version}  {found.digest}", soft_wrap=True))
    return 0


@app.command("list")
def list_names(place: PlaceOption = None, as_json: JsonOption = False) -> int:
    """All names, their newest version and their aliases."""
    registry = _registry(place)
    states = {name: registry.state(name) for name in registry.names()}

    def show(console: Console) -> None:
        table = _table("name", "newest", "aliases")
        for name, state in states.items():
            table.add_row(name, str(max(state.versions)), _aliases(state))
        console.print(table if states else "nothing is released yet: raytrain registry add")

    told = [{"name": name, **_state_object(state)} for name, state in states.items()]
    emit({"names": told}, as_json, show)
    return 0


@app.command("show")
def show_name(
    name: Annotated[str, typer.Argument(help="A name in the registry.")],
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """The versions of a name, the newest first."""
    state = _registry(place).state(name)

    def show(console: Console) -> None:
        table = _table("version", "digest", "released", "by", "aliases", "why")
        for version in sorted(state.versions, reverse=True):
            one = state.versions[version]
            aliases = [alias for alias, at in state.aliases.items() if at == version]
            row = (one.digest[7:19], one.entry.time[:19], one.entry.who, ", ".join(aliases), one.entry.why)
            table.add_row(str(version), *row)
        console.print(table)

    emit({"name": name, **_state_object(state)}, as_json, show)
    return 0


@app.command("log")
def log(
    name: Annotated[str, typer.Argument(help="A name in the registry.")],
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Everything that happened to a name: when, by whom, why."""
    entries = _registry(place).entries(name)

    def show(console: Console) -> None:
        table = _table("", "when", "who", "what", "why")
        for one in entries:
            shown = {key: value for key, value in one.details.items() if key in _TOLD and value}
            what = f"{one.action} {', '.join(f'{key} {value}' for key, value in shown.items())}"
            table.add_row(str(one.number), one.time[:19], one.who, what, one.why)
        console.print(table)

    emit({"name": name, "entries": [asdict(one) for one in entries]}, as_json, show)
    return 0


_TOLD = ("alias", "version", "before", "decision", "added", "removed")


@app.command("verify")
def verify(
    reference: ReferenceArgument,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Whether a version is the bundle that was released, signed by a key that counts; exit code 5 if not."""
    signed = _registry(place).verified(reference, ring_of(ring))
    key, digest = signed.key, signed.artifact.digest
    path = str(signed.artifact.path)
    told = {"reference": reference, "digest": digest, "key": key.id, "name": key.name, "path": path}
    text = f"{reference}: signed by {key.name} ({key.short_id}, {key.state})\n{digest}"
    emit(told, as_json, lambda console: console.print(text, highlight=False, soft_wrap=True))
    return 0


@app.command("audit")
def audit(place: PlaceOption = None, ring: RingOption = None, as_json: JsonOption = False) -> int:
    """Go through every journal and every bundle; exit code 5 if anything is not as it was written."""
    registry = _registry(place)
    faults = registry.audit(ring_of(ring))

    def show(console: Console) -> None:
        table = _table("name", "", "")
        for one in faults:
            table.add_row(one.name, one.thing, one.what)
        console.print(table if faults else f"{len(registry.names())} names, all as they were written")

    emit({"whole": not faults, "faults": [asdict(one) for one in faults]}, as_json, show)
    return IntegrityError.exit_code if faults else 0


@app.command("doctor")
def doctor(
    place: PlaceOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is found.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Find what killed writers left: it takes room, and means nothing. Not while somebody registers."""
    registry = _registry(place)
    orphans = registry.orphans()
    if delete:
        registry.delete(orphans)

    def show(console: Console) -> None:
        for one in orphans:
            console.print(f"{'deleted ' if delete else ''}{one}", highlight=False, soft_wrap=True)
        if not orphans:
            console.print("nothing was left by anybody")

    emit({"orphans": [str(one) for one in orphans], "deleted": delete}, as_json, show)
    return 0


def _registry(place: Path | None) -> Registry:
    from raytrain.release.registry.registry import Registry
    from raytrain.storage.home import raytrain_home

    return Registry((place or raytrain_home() / "registry").absolute())


def _object(released: Released) -> dict[str, Any]:
    return {
        "version": str(released.version),
        "digest": released.digest,
        "made_from": released.made_from,
        "released": released.entry.time,
        "by": released.entry.who,
        "why": released.entry.why,
    }


def _state_object(state: State) -> dict[str, Any]:
    return {
        "versions": [
            {**_object(state.versions[one]), "tags": sorted(state.tags[one])}
            for one in sorted(state.versions, reverse=True)
        ],
        "aliases": {alias: str(version) for alias, version in sorted(state.aliases.items())},
    }


def _aliases(state: State) -> str:
    return ", ".join(f"{alias} {version}" for alias, version in sorted(state.aliases.items()))


def _table(*headings: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table

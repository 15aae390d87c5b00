"""`raytrain registry`: what was released under which version, and whether it still is what it was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.promote import promote
from raytrain.cli.registry_compare import compare, diff
from raytrain.cli.registry_place import (
    PlaceOption,
    ReferenceArgument,
    registry_of,
    released_object,
    show_rows,
    state_object,
    withdrawn_object,
)
from raytrain.cli.registry_transfer import export_version, import_version
from raytrain.cli.registry_upkeep import collect, doctor, publish
from raytrain.cli.rollback import rollback
from raytrain.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.state import State
    from raytrain.release.registry.versions import Version

app = typer.Typer(help="Versions of what was released.", no_args_is_help=True)
app.command("compare")(compare)
app.command("diff")(diff)
app.command("export")(export_version)
app.command("import")(import_version)
app.command("doctor")(doctor)
app.command("publish")(publish)
app.command("gc")(collect)
app.command("promote")(promote)
app.command("rollback")(rollback)


@app.command("add")
def add(
    reference: Annotated[
        str,
        typer.Argument(help="NAME, or NAME@VERSION; without a version the next one, by what has changed."),
    ],
    artifact: Annotated[Path, typer.Argument(help="Folder of a signed artifact.")],
    why: Annotated[str, typer.Option(help="What is new; it stands in the journal.")],
    evaluation: Annotated[
        list[str] | None,
        typer.Option(help="An evaluation of it, named in the journal with its metrics; repeatable."),
    ] = None,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Release a signed artifact under a version, which never changes afterwards.

    Another base model or tokenizer makes a major version, other rows or another recipe a minor one, another seed a
    patch.
    """
    from raytrain.release.bundle.description import ingredients_of
    from raytrain.release.registry.evidence import details_of
    from raytrain.release.registry.versions import Version, next_version
    from raytrain.storage.artifact import open_artifact
    from raytrain.storage.named_places import place_of_artifact

    registry = registry_of(place)
    name, _, wanted = reference.partition("@")
    opened = open_artifact(place_of_artifact(artifact), verify=False)
    made_from, details = ingredients_of(opened), details_of(opened, evaluation or [])
    if wanted:
        version = Version.parse(wanted)
    else:
        released = registry.released(name)
        version = next_version([(one.version, one.made_from) for one in released], made_from)
    found = registry.register(
        name, version, opened.path, ring_of(ring), made_from=made_from, why=why, details=details
    )
    told = {"name": name, **released_object(found)}
    emit(told, as_json, lambda console: console.print(f"{name}@{version}  {found.digest}", soft_wrap=True))
    return 0


@app.command("list")
def list_names(place: PlaceOption = None, as_json: JsonOption = False) -> int:
    """All names, their newest version and their aliases."""
    from raytrain.release.registry.state import without_collection

    with without_collection():
        states = registry_of(place).states()

        def show(console: Console) -> None:
            rows = [(name, str(max(state.versions)), _aliases(state)) for name, state in states.items()]
            if rows:
                show_rows(console, ("name", "newest", "aliases"), rows)
            else:
                console.print("nothing is released yet: raytrain registry add")

        told = [{"name": name, **state_object(state)} for name, state in states.items()] if as_json else []
        emit({"names": told}, as_json, show)
    return 0


@app.command("show")
def show_name(
    name: Annotated[str, typer.Argument(help="A name in the registry.")],
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """The versions of a name, the newest first."""
    state = registry_of(place).state(name)

    def show(console: Console) -> None:
        named: dict[Version, list[str]] = {}
        for alias, version in state.aliases.items():
            named.setdefault(version, []).append(alias)
        rows = []
        for version in sorted(state.versions, reverse=True):
            one = state.versions[version]
            at = (one.digest[7:19], one.entry.time[:19], one.entry.who)
            aliases = "withdrawn" if version in state.withdrawn else ", ".join(named.get(version, []))
            names = aliases, ", ".join(sorted(state.tags[version]))
            rows.append((str(version), *at, *names, one.entry.why))
        show_rows(console, ("version", "digest", "released", "by", "aliases", "tags", "why"), rows)

    emit({"name": name, **state_object(state)}, as_json, show)
    return 0


@app.command("log")
def log(
    name: Annotated[str, typer.Argument(help="A name in the registry.")],
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Everything that happened to a name: when, by whom, why."""
    entries = registry_of(place).entries(name)

    def show(console: Console) -> None:
        rows = []
        for one in entries:
            shown = {key: value for key, value in one.details.items() if key in _TOLD and value}
            what = f"{one.action} {', '.join(f'{key} {value}' for key, value in shown.items())}"
            rows.append((str(one.number), one.time[:19], one.who, what, one.why))
        show_rows(console, ("", "when", "who", "what", "why"), rows)

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
    signed = registry_of(place).verified(reference, ring_of(ring))
    key, digest = signed.key, signed.artifact.digest
    path = str(signed.artifact.path)
    told = {"reference": reference, "digest": digest, "key": key.id, "name": key.name, "path": path}
    text = f"{reference}: signed by {key.name} ({key.short_id}, {key.state})\n{digest}"
    emit(told, as_json, lambda console: console.print(text, highlight=False, soft_wrap=True))
    return 0


@app.command("audit")
def audit(place: PlaceOption = None, ring: RingOption = None, as_json: JsonOption = False) -> int:
    """Go through every journal, bundle and record; exit code 5 if anything is not as it was written.

    Of a version that was withdrawn only the journal counts: it is told, and no fault.
    """
    from raytrain.evaluation.decision.quantity import counted
    from raytrain.release.gate.audit import audit as look
    from raytrain.release.registry.state import state_of

    faults, withdrawn, num_names, progress = [], [], 0, stderr_console()
    registry = registry_of(place)
    for name, found in look(registry, ring_of(ring)):
        if progress.is_terminal or found:
            progress.print(
                f"{name}: {counted(len(found), 'fault')}", style="dim", highlight=False, markup=False
            )
        faults += found
        num_names += 1
        if not any(one.thing == "journal" for one in found):
            state = state_of(registry.journal(name).read())
            withdrawn += [
                {"name": name, "version": str(one), **(withdrawn_object(state, one) or {})}
                for one in sorted(state.withdrawn)
            ]

    def show(console: Console) -> None:
        if faults:
            show_rows(console, ("name", "", ""), [(one.name, one.thing, one.what) for one in faults])
        else:
            console.print(f"{counted(num_names, 'name')}: all is as it was written")
        for one in withdrawn:
            told = f"{one['name']}@{one['version']} was withdrawn {one['when'][:19]} by {one['by']}: {one['why']}"
            console.print(told, highlight=False, markup=False, soft_wrap=True)

    told = {"whole": not faults, "faults": [asdict(one) for one in faults], "withdrawn": withdrawn}
    emit(told, as_json, show)
    return IntegrityError.exit_code if faults else 0


@app.command("tag", context_settings={"ignore_unknown_options": True}, options_metavar="[OPTIONS]")
def tag(
    reference: ReferenceArgument,
    changes: Annotated[
        list[str], typer.Argument(metavar="+TAG|-TAG…", help="Tags to give, and to take away.")
    ],
    why: Annotated[str, typer.Option(help="It stands in the journal.")] = "",
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Give a version tags, or take some away; the version itself never changes."""
    for one in changes:
        is_signed = one[:1] in ("+", "-") and one[1:2] not in ("+", "-")
        if not is_signed or not one[1:].strip() or len(one) > 101 or not one.isprintable():
            raise ConfigError(
                f"{one!r} is no change of a tag",
                why="a tag is given with + and taken away with -, and has 1 to 100 printable signs",
                fix="write for example +golden -draft",
            )
    registry = registry_of(place)
    version = registry.find(reference).version
    added, removed = ({one[1:] for one in changes if one[0] == sign} for sign in "+-")
    name = reference.partition("@")[0]
    entry = registry.tag(name, version, added=added - removed, removed=removed, why=why)
    tags = sorted(registry.state(name).tags[version])
    told = {"name": name, "version": str(version), "tags": tags, "changed": entry is not None}
    text = f"{name}@{version}: {', '.join(tags) or 'no tags'}{'' if entry else '; as it was, nothing was written'}"
    emit(told, as_json, lambda console: console.print(text, highlight=False, markup=False, soft_wrap=True))
    return 0


@app.command("withdraw")
def withdraw(
    reference: ReferenceArgument,
    why: Annotated[str, typer.Option(help="It stands in the journal, and in every refusal.")],
    place: PlaceOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let a version be promoted, rolled back to, loaded and handed on no more, for good: its key was revoked, or it is
    bad.

    Exit code 5 while an alias names it.
    """
    if not why.strip():
        raise ConfigError("a withdrawal needs a reason", why="none is given", fix="say --why TEXT")
    registry, name = registry_of(place), reference.partition("@")[0]
    version = registry.find(reference).version
    entry = registry.withdraw(name, version, why=why.strip())
    told = {"name": name, "version": str(version), "when": entry.time, "by": entry.who, "why": entry.why}
    text = f"{name}@{version} is withdrawn"
    emit(told, as_json, lambda console: console.print(text, highlight=False, markup=False, soft_wrap=True))
    return 0


def _aliases(state: State) -> str:
    return ", ".join(f"{alias} {version}" for alias, version in sorted(state.aliases.items()))

"""`raytrain rollback`: production back to the version before, or a drill of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.promote import KeyOption, WhyOption
from raytrain.cli.recorded_runs import wide
from raytrain.cli.registry_place import PlaceOption, registry_of
from raytrain.cli.serve_endpoint import LOAD, LOAD_TIMEOUT_S, ask
from raytrain.cli.serve_endpoint import KeyOption as OperatorKeyOption
from raytrain.errors import RefusedError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.rollback import Rollback


def rollback(
    name: Annotated[str, typer.Argument(help="A name in the registry.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="A version that was there, or an alias of one; else the one before that nobody had to force.",
        ),
    ] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Everything but the switch.")] = False,
    load: Annotated[
        bool,
        typer.Option(
            "--load",
            help="Also build the model, in a fresh process, and ask it for a token; most of its seconds are imports.",
        ),
    ] = False,
    service: Annotated[
        str | None,
        typer.Option(
            "--service",
            metavar="URL",
            help="Also have every replica of the service there load it, before the switch; within a second or two.",
        ),
    ] = None,
    api_key: OperatorKeyOption = None,
    other_base: Annotated[
        bool, typer.Option("--other-base", help="Also to a version over another base model or tokenizer.")
    ] = False,
    key: KeyOption = "default",
    why: WhyOption = "",
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let production name the version before, after checking that it verifies and fits what serves now, and that its
    weights load: all of them are read. A model is built of them with --service, where it is going to answer, or with
    --load, here.

    A second rollback goes one version further back. Exit code 5 where one of the checks does not hold. A rehearsal
    wants the key as well, and signs nothing.
    """
    from raytrain.release.rollback import Hangar, RollbackOptions, roll_back
    from raytrain.storage.section import StorageSection

    registry, keys = registry_of(place), ring_of(ring)
    registry.entries(name)  # a name that is not there is told before a key that is not
    signing_key = keys.signing_key(key)  # at a rehearsal, too: without it the day itself would fail
    options = RollbackOptions(
        None if to is None else registry.find(f"{name}@{to}").version,
        rehearse=rehearse,
        other_base=other_base,
        load=load,
        have_loaded=None if service is None else partial(_load_at, service, api_key),
        why=why,
    )
    console = stderr_console()

    def tell(step: str) -> None:
        if not as_json:
            console.print(f"  … {step}", style="dim", markup=False, highlight=False)

    hangar = Hangar(registry, keys, StorageSection().location, tell)
    done = roll_back(hangar, name, signing_key, options)
    emit(done.as_dict(), as_json, lambda output: _show(wide(output), done))
    return 0


def _load_at(url: str, api_key: str | None, reference: str, digest: str) -> str:
    """By every replica. Raises RefusedError where another version has that name there, and what `ask` raises."""
    _, found = ask(url, LOAD, api_key, {"model": reference, "keep": False}, timeout_s=LOAD_TIMEOUT_S)
    if found["digest"] != digest:
        raise RefusedError(
            f"{url} does not serve from this registry",
            why=f"{reference} is {found['digest'][:19]} there, and {digest[:19]} here",
            fix="name the registry that it follows (--registry), or another service",
        )
    return f"loaded on all {len(found['replicas'])} replicas at {url}"


def _show(console: Console, done: Rollback) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (
        "",
        f"{done.before}, until now" if done.moved else f"{done.before}, now",
        str(done.after),
    ):
        table.add_column(heading, overflow="fold")
    for one in done.fits:
        table.add_row(one.thing, one.serving[:19], one.wanted[:19])
    console.print(table)
    told = [
        f"{done.weights}{'' if done.loaded else '; no model was built of them (--service or --load does)'}",
        *done.notes,
        ", ".join(f"{step} {taken:.2f} s" for step, taken in done.seconds.items()),
    ]
    for line in told:
        console.print(f"  · {line}", markup=False, highlight=False)
    told_now = f"{done.name}@production is {done.after} now"
    if not done.moved:
        told_now = f"rehearsed: {done.name} could go back to {done.after}"
    console.print(
        f"{told_now}; {sum(done.seconds.values()):.2f} s", style="bold", markup=False, highlight=False
    )

"""What the commands of `raytrain registry` share: where it lies, and how versions are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.registry.registry import Registry
    from raytrain.release.registry.state import Released, State
    from raytrain.release.registry.versions import Version

PlaceOption = Annotated[
    str | None,
    typer.Option("--registry", help="Folder or URI of the registry; by default RAYTRAIN_HOME/registry."),
]
ReferenceArgument = Annotated[str, typer.Argument(help="NAME@VERSION or NAME@ALIAS.")]

_MOST_IN_TABLE = 500
"""Above that lines are not fitted to the terminal, which takes rich seconds."""


def registry_of(place: str | None) -> Registry:
    """Raises ConfigError where it is no place for a registry; nothing is touched."""
    from raytrain.release.registry.registry import Registry
    from raytrain.release.registry.store import open_store
    from raytrain.storage.home import raytrain_home

    return Registry(open_store(place or str(raytrain_home() / "registry")))


def released_object(released: Released) -> dict[str, Any]:
    return {
        "version": str(released.version),
        "digest": released.digest,
        "made_from": released.made_from,
        "released": released.entry.time,
        "by": released.entry.who,
        "why": released.entry.why,
    }


def withdrawn_object(state: State, version: Version) -> dict[str, str] | None:
    """When, by whom and why; None where it was not."""
    entry = state.withdrawn.get(version)
    return None if entry is None else {"when": entry.time, "by": entry.who, "why": entry.why}


def state_object(state: State) -> dict[str, Any]:
    return {
        "versions": [
            {
                **released_object(state.versions[one]),
                "tags": sorted(state.tags[one]),
                "withdrawn": withdrawn_object(state, one),
            }
            for one in sorted(state.versions, reverse=True)
        ],
        "aliases": {alias: str(version) for alias, version in sorted(state.aliases.items())},
    }


def show_rows(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As a table; what people wrote is no markup."""
    if len(rows) > _MOST_IN_TABLE:
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            console.file.write("  ".join(cells).rstrip() + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)

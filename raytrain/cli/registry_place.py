"""What the commands of `raytrain registry` share: where it lies, and how versions are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from raytrain.release.registry.registry import Registry
    from raytrain.release.registry.state import Released, State

PlaceOption = Annotated[
    str | None,
    typer.Option("--registry", help="Folder or URI of the registry; by default RAYTRAIN_HOME/registry."),
]
ReferenceArgument = Annotated[str, typer.Argument(help="NAME@VERSION or NAME@ALIAS.")]


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


def state_object(state: State) -> dict[str, Any]:
    return {
        "versions": [
            {**released_object(state.versions[one]), "tags": sorted(state.tags[one])}
            for one in sorted(state.versions, reverse=True)
        ],
        "aliases": {alias: str(version) for alias, version in sorted(state.aliases.items())},
    }


def table_of(*headings: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def add_row(table: Any, *cells: str) -> None:
    """What people wrote is no markup."""
    from rich.text import Text

    table.add_row(*map(Text, cells))

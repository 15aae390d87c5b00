"""`raytrain sbom`: what a bundle says that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit

if TYPE_CHECKING:
    from rich.console import Console


def sbom(
    folder: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    as_json: JsonOption = False,
) -> int:
    """Show a bundle's inventory: model, rows and packages with their licences; exit code 5 if it is not valid."""
    from raytrain.release.inventory.sbom import read_sbom

    document = read_sbom(folder)

    def show(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("type", "name", "version", "licence"):
            table.add_column(heading, overflow="fold")
        about = document.get("metadata", {}).get("component")
        for one in ([about] if about else []) + document.get("components", []):
            row = (one["type"], one["name"], one.get("version", ""), _licences(one))
            table.add_row(*map(Text, row))
        console.print(table)

    emit({"document": document}, as_json, show)
    return 0


def _licences(component: dict[str, Any]) -> str:
    told = (one.get("expression") or one["license"] for one in component.get("licenses", []))
    return ", ".join(one if isinstance(one, str) else one.get("id") or one["name"] for one in told)

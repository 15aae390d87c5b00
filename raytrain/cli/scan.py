"""`raytrain scan`: whether a folder holds what must not be handed on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.errors import RefusedError

if TYPE_CHECKING:
    from rich.console import Console


def scan(
    folder: Annotated[Path, typer.Argument(help="A bundle or any other artifact, on this disk.")],
    as_json: JsonOption = False,
) -> int:
    """Search a folder for secrets, pickles, programs, and files that nobody can read; exit code 5 if any is there."""
    from rich.text import Text

    from raytrain.evaluation.decision.quantity import counted
    from raytrain.release.scans.scan import scan as scan_folder
    from raytrain.release.scans.scan import subject_of

    with stderr_console().status(f"scanning {folder}"):
        report = scan_folder(folder, subject=subject_of(folder))

    def show(console: Console) -> None:
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("file", "line", "scanner", "what"):
            table.add_column(heading, overflow="fold")
        for one in report.findings:
            where = str(one.line) if one.line else one.key
            table.add_row(*map(Text, (one.file, where, one.scanner, f"{one.kind}: {one.what}")))
        if report.findings:
            console.print(table)
        num = len(report.findings)
        verdict = "passed" if report.passed else f"refused: {counted(num, 'finding')}"
        console.print(f"{counted(len(report.files), 'file')}, {verdict}", highlight=False)

    emit(report.as_dict(), as_json, show)
    return 0 if report.passed else RefusedError.exit_code

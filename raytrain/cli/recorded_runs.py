"""What the commands over runs share: the RUN argument, the records, and a console that shows an id whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.runs.records import Records

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or `latest`.")
]


@contextmanager
def opened_records() -> Iterator[Records]:
    from raytrain.runs.records import open_records

    records = open_records()
    try:
        yield records
    finally:
        records.close()


def wide(console: Console) -> Console:
    """In a pipe or a file there is no screen to fit, and a cut id would be of no use."""
    if not console.is_terminal:
        console.width = 240
    return console

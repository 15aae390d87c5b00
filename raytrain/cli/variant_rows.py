"""Rows that `raytrain variants` reads: what they must hold, and what is wrong where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raytrain.errors import DataError


def files_of(path: Path) -> list[Path]:
    """What is read for `path`, which may be a folder or a pattern. Raises DataError where nothing is there."""
    from raytrain.data.sources import find_files

    found, _ = find_files(str(path))
    return [file for file, _ in found]


def read_rows(path: Path, id_column: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, row); numbers count from 1, as those of a suite's items do."""
    from raytrain.data.rows import RowFault
    from raytrain.data.section import RowsSection
    from raytrain.data.sources import open_sources

    (opened,) = open_sources([RowsSection(path=str(path))])
    for raw in opened.rows():
        if isinstance(raw.content, RowFault):
            raise DataError(
                f"{path}, row {raw.line} cannot be read",
                why=raw.content.detail,
                fix="mend the row or take it out",
            )
        row = dict(raw.content)
        name = str(raw.line) if id_column is None else str(value_of(row, id_column, str(raw.line)))
        yield name, row


def texts_of(path: Path, id_column: str | None, first: str, second: str) -> Iterator[tuple[str, str, str]]:
    """(id, text of the first column, text of the second)."""
    for name, row in read_rows(path, id_column):
        yield name, text_of(row, first, name), text_of(row, second, name)


def value_of(row: dict[str, Any], column: str, name: str) -> Any:
    if column not in row:
        raise DataError(
            f"row {name} has no `{column}`",
            why=f"it has {', '.join(row)}",
            fix="rename the column in the file",
        )
    return row[column]


def text_of(row: dict[str, Any], column: str, name: str) -> str:
    value = value_of(row, column, name)
    if not isinstance(value, str):
        raise DataError(
            f"row {name}: `{column}` is no text", why=f"it is {type(value).__name__}", fix="give it as text"
        )
    return value


def choices_of(row: dict[str, Any], name: str) -> tuple[list[str], int]:
    listed, right = value_of(row, "choices", name), value_of(row, "answer", name)
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise DataError(
            f"row {name}: `choices` is no list of texts", why=str(listed)[:80], fix="give it as one"
        )
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(listed):
        raise DataError(
            f"row {name}: `answer` is no choice's number", why=f"it is {right!r}", fix="count choices from 0"
        )
    return listed, right

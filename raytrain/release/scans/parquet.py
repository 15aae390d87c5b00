"""Parquet: its rows, names and metadata, and whether any byte lies between its columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raytrain.release.scans.raw_bytes import UnreadBytesError, runs_of_file, texts_of

_MAGIC_BYTES = 4


def parquet_texts(path: Path) -> Iterator[str]:
    """Raises UnreadBytesError where bytes belong to no column, beside whatever pyarrow raises."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _raise_if_gap(file.metadata, path)
        yield from _metadata_texts(file.metadata.metadata)
        yield from _metadata_texts(file.schema_arrow.metadata)
        for one in file.schema_arrow:
            yield from _field_texts(one)
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                yield from _strings(row, "")
    yield from runs_of_file(path)


def _raise_if_gap(metadata: Any, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(size - 8)
        footer = size - 8 - int.from_bytes(stream.read(4), "little")
    reached = _MAGIC_BYTES
    for start, end in sorted(_columns(metadata)):
        if start != reached:
            raise UnreadBytesError(f"bytes {reached} to {start} belong to no column, or to two")
        reached = end
    if reached != footer:
        raise UnreadBytesError(f"bytes {reached} to {footer} belong to no column: an index is not read here")


def _columns(metadata: Any) -> Iterator[tuple[int, int]]:
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            start = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset:
                start = min(start, column.dictionary_page_offset)
            yield start, start + column.total_compressed_size


def _metadata_texts(found: dict[bytes, bytes] | None) -> Iterator[str]:
    for key, value in (found or {}).items():
        yield f"{key.decode('utf-8', 'replace')}: {value.decode('utf-8', 'replace')}"


def _field_texts(field: Any) -> Iterator[str]:
    """A column's name, what is noted of it, and the same of those within it."""
    yield field.name
    yield from _metadata_texts(field.metadata)
    for number in range(field.type.num_fields):
        yield from _field_texts(field.type.field(number))


def _strings(value: Any, label: str) -> Iterator[str]:
    if isinstance(value, (str, bytes)):
        for text in texts_of([value]):
            yield f"{label}: {text}" if label else text
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner, label)

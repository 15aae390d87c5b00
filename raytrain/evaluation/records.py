"""What each item came to, kept in Parquet files that appear whole or not at all."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raytrain.errors import DataError
from raytrain.storage.location import translated_errors

_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("item_digest", pa.string()),
        ("prompt", pa.string()),
        ("output", pa.string()),
        ("references", pa.list_(pa.string())),
        ("score", pa.float64()),
        ("note", pa.string()),
        ("error", pa.string()),
        ("group", pa.string()),
        ("category", pa.string()),
        ("num_prompt_tokens", pa.int64()),
        ("num_new_tokens", pa.int64()),
        ("stop_reason", pa.string()),
        ("least_margin", pa.float64()),
        ("log_likelihoods", pa.list_(pa.float64())),
        ("num_bytes", pa.list_(pa.int64())),
        ("choices", pa.list_(pa.string())),
        ("right", pa.int64()),
        ("was_cut", pa.bool_()),
        ("seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class ItemRecord:
    """One item's outcome."""

    item_id: str
    item_digest: str
    prompt: str
    """As the model read it."""
    output: str
    """What it wrote; of a multiple choice the choice it found likeliest."""
    references: tuple[str, ...]
    score: float | None
    """None where the item has none, for the reason in `error`; it counts as 0, and is told of."""
    note: str = ""
    error: str | None = None
    group: str | None = None
    category: str | None = None
    num_prompt_tokens: int = 0
    num_new_tokens: int = 0
    stop_reason: str | None = None
    least_margin: float | None = None
    """See GreedyAnswer."""
    log_likelihoods: tuple[float, ...] = ()
    """In nats, of each choice, or of the text."""
    num_bytes: tuple[int, ...] = ()
    """Of the texts that these are of."""
    choices: tuple[str, ...] = ()
    """Of a multiple choice."""
    right: int | None = None
    """The number of the right one, from 0."""
    was_cut: bool = False
    """Whether the model could not read the beginning."""
    seconds: float | None = None
    """From when its batch, or its request, began until its answer stood; of likelihoods its share of the batch's time.
    An evaluation's digest is not over it."""


assert [one.name for one in fields(ItemRecord)] == _SCHEMA.names, "one column a field"


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: half of a surrogate pair is written out as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def json_safe(value: Any) -> Any:
    """What is infinite or no number becomes null; half of a surrogate pair becomes an escape."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(str(key)): json_safe(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(one) for one in value]
    return value


class RecordFolder:
    """The records of one evaluation that may be interrupted. One process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".part-*"):
            stale.unlink(missing_ok=True)

    def _next_number(self) -> int:
        """Also after a damaged file was moved aside."""
        return (
            max((int(one.stem.removeprefix("part-")) for one in self._folder.glob("part-*")), default=-1) + 1
        )

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def append(self, records: Iterable[ItemRecord]) -> None:
        """Add records as one file, synced to the disk before it appears. Raises StorageError where there is no room."""
        table = table_of(records)
        if not table.num_rows:
            return
        with translated_errors(self._folder, "write"):
            handle, staged = tempfile.mkstemp(prefix=".part-", dir=self._folder)
            with os.fdopen(handle, "wb") as stream:
                pq.write_table(table, stream)
                stream.flush()
                os.fsync(stream.fileno())
            Path(staged).replace(self._folder / f"part-{self._next_number():06d}.parquet")

    def read(self) -> tuple[dict[str, ItemRecord], list[str]]:
        """Records by item id, and the names of files that are damaged: those are moved aside, their items are to be
        evaluated again."""
        found: dict[str, ItemRecord] = {}
        damaged = []
        for part in self._parts():
            try:
                records = records_of(pq.read_table(part, schema=_SCHEMA))
            except (pa.ArrowException, OSError, ValueError):
                part.rename(part.with_suffix(".damaged"))
                damaged.append(part.name)
                continue
            found |= {one.item_id: one for one in records}
        return found, damaged


def read_records(path: Path) -> list[ItemRecord]:
    """A Parquet file of records. Raises DataError where it is none."""
    try:
        return records_of(pq.read_table(path, schema=_SCHEMA))
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} holds no item records",
            why=str(error).splitlines()[0],
            fix="give a Parquet file that an evaluation wrote",
        ) from error


def table_of(records: Iterable[ItemRecord]) -> pa.Table:
    """Records as Arrow, one column a field."""
    rows = [_storable_row(one) for one in records]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _storable_row(record: ItemRecord) -> dict[str, Any]:
    row = asdict(record)
    for name, value in row.items():
        if isinstance(value, str):
            row[name] = storable(value)
        elif isinstance(value, tuple):
            row[name] = [storable(one) if isinstance(one, str) else one for one in value]
    return row


def records_of(table: pa.Table) -> list[ItemRecord]:
    """The other way."""
    found = []
    for row in table.to_pylist():
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
        }
        found.append(ItemRecord(**values))
    return found

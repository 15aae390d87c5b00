"""The rows that are watched, from any table: what cannot be read is told and left out."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.errors import DataError
from raytrain.monitoring.times import as_seconds

SKEW_S = 300.0
"""A row may be so much younger than the clock here says."""


@dataclass
class Rows:
    """Columns of equal length, by time."""

    columns: dict[str, list[Any]]
    times: NDArray[np.float64] | None
    """Seconds since the epoch, ascending; None where rows have no time."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    kinds: dict[str, Any] = field(default_factory=dict)
    """What columns hold, where whoever read them knows."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, places: Iterable[int] | NDArray[np.int64]) -> Rows:
        chosen = [int(one) for one in places]
        columns = {name: [cells[i] for i in chosen] for name, cells in self.columns.items()}
        times = None if self.times is None else self.times[chosen]
        return Rows(columns, times, self.notes, self.kinds)


def read_table(pattern: str, time_column: str | None, now: float) -> Rows:
    """Of a file, a folder or a glob. Raises DataError where nothing is there, or the column of time is not."""
    from raytrain.data.sources import find_files

    files, skipped = find_files(pattern)
    notes = [f"not read, for their suffix: {', '.join(sorted(skipped)[:10])}"] if skipped else []
    read: list[dict[str, Any]] = []
    for path, label in files:
        of_file, told = _read_file(path, label)
        read += of_file
        notes += told
    columns = _as_columns(read)
    key = time_column or ("at" if "at" in columns else None)
    if key is None:
        return Rows(columns, None, notes)
    if key not in columns and read:
        raise DataError(
            f"the rows have no column {key}",
            why=f"`time` names it; there are {', '.join(columns)}",
            fix="name the column that says when a row came, or leave `time` out",
        )
    rows = in_order(columns, [as_seconds(one) for one in columns.get(key, [])], notes, now)
    rows.kinds = {key: "ignore"}
    return rows


def in_order(columns: Mapping[str, list[Any]], times: list[float], notes: list[str], now: float) -> Rows:
    """By time. Rows without one, and rows from the future, are told and left out."""
    seconds = np.asarray(times, np.float64)
    unknown = np.isnan(seconds)
    ahead = ~unknown & (seconds > now + SKEW_S)
    notes = list(notes)
    if unknown.any():
        notes.append(f"{int(unknown.sum()):,} rows are left out: they have no time that can be read")
    if ahead.any():
        furthest = float(seconds[ahead].max() - now)
        notes.append(
            f"{int(ahead.sum()):,} rows are left out: clock skew, they are up to {furthest:,.0f} s in the future"
        )
    kept = np.flatnonzero(~unknown & ~ahead)
    order = kept[np.argsort(seconds[kept], kind="stable")]
    rows = Rows(dict(columns), seconds, notes)
    return rows.take(order)


def _read_file(path: Any, label: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows up to where it breaks off; what was left out."""
    import gzip

    import pyarrow as pa

    from raytrain.data.readers import READERS, suffix_of
    from raytrain.data.rows import RowFault

    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    faults = 0
    try:
        is_packed = path.name.lower().endswith(".gz")
        with gzip.open(path, "rb") if is_packed else path.open("rb") as stream:
            for _, content in READERS[str(suffix_of(path.name))](stream):
                if isinstance(content, RowFault):
                    faults += 1
                else:
                    rows.append(content)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        notes.append(f"{label} is read up to row {len(rows):,}: {type(error).__name__}: {str(error)[:120]}")
    if faults:
        notes.append(f"{faults:,} rows of {label} are left out: they cannot be read")
    return rows, notes


def _as_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}

"""The second pass: rows that stay go from the spill to their split's Parquet file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from raytrain.data.dataset import SPLITS, dataset_schema, row_as_canonical
from raytrain.data.duplicates import Duplicates
from raytrain.data.section import DataSection
from raytrain.data.splits import split_codes

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP_ROWS = 16_384
_ROW_GROUP_BYTES = 32 * 2**20


@dataclass
class SplitSummary:
    """Sizes and scores of the rows of one split; 4 bytes a row."""

    num_chars: list[NDArray[np.int32]] = field(default_factory=list)
    quality_sum: float = 0.0
    first_rows: list[dict[str, Any]] = field(default_factory=list)


class _SplitFile:
    """A Parquet file that is written in row groups of one size, however small the pieces that come in."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(
            path, dataset_schema(), compression="zstd", compression_level=1, use_dictionary=["source", "role"]
        )
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def add(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _ROW_GROUP_ROWS or self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending:
            table = pa.Table.from_batches(self._pending)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending, self._rows, self._bytes = [], 0, 0


def write_splits(
    spill: Path,
    content_path: Path,
    duplicates: Duplicates,
    section: DataSection,
    folder: Path,
    wanted: set[int],
    on_batch: Callable[[int], None],
) -> tuple[dict[str, SplitSummary], dict[int, dict[str, Any]]]:
    """Write the splits into `folder`. Returns a summary of each, and the `wanted` rows."""
    import pyarrow as pa

    summaries: dict[str, SplitSummary] = {split: SplitSummary() for split in SPLITS}
    found: dict[int, dict[str, Any]] = {}
    begin = 0
    with ExitStack() as stack:
        # Files are read, not mapped: the pages of a map would count as memory of this process.
        rows = stack.enter_context(pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(spill)))))
        hashes = stack.enter_context(content_path.open("rb"))
        files = [stack.enter_context(_SplitFile(folder / f"{split}.parquet")) for split in SPLITS]
        for batch in rows:
            size = batch.num_rows
            codes = split_codes(
                np.frombuffer(hashes.read(16 * size), np.uint64).reshape(-1, 2),
                val_fraction=section.val_fraction,
                test_fraction=section.test_fraction,
                salt=section.split_salt,
            )
            stays = duplicates.duplicate_of[begin : begin + size] < 0
            for code, split in enumerate(SPLITS):
                chosen = np.flatnonzero(stays & (codes == code))
                if len(chosen):
                    part = batch if len(chosen) == size else batch.take(pa.array(chosen))
                    files[code].add(part)
                    _summarise(summaries[split], part)
            for row in wanted.intersection(range(begin, begin + size)) if wanted else ():
                found[row] = batch.slice(row - begin, 1).to_pylist()[0]
            begin += size
            on_batch(begin)
    return summaries, found


def _summarise(summary: SplitSummary, part: pa.RecordBatch) -> None:
    summary.num_chars.append(part.column("num_chars").to_numpy())
    summary.quality_sum += float(part.column("quality").to_numpy().astype(np.float64).sum())
    if len(summary.first_rows) < 2:
        missing = 2 - len(summary.first_rows)
        summary.first_rows.extend(row_as_canonical(row) for row in part.slice(0, missing).to_pylist())

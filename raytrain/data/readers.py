"""One reader per file format: yields (line number, row or fault), never raises for what a row holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from raytrain.data.rows import RowFault

NumberedRow = tuple[int, dict[str, Any] | RowFault]
Reader = Callable[[BinaryIO], Iterator[NumberedRow]]

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is rejected unread, so that a file without line ends cannot fill the memory."""

_BOM = b"\xef\xbb\xbf"


def read_jsonl(stream: BinaryIO) -> Iterator[NumberedRow]:
    """One JSON object per line; blank lines are passed over."""
    for number, line in _lines(stream):
        if line is None:
            yield number, RowFault("too_long", f"the line has more than {MAX_LINE_BYTES} bytes", "")
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield number, _undecodable(line, error)
            continue
        if text.isspace() or not text:
            continue
        yield number, _parsed(text)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        yield number, line


def _undecodable(line: bytes, error: UnicodeDecodeError) -> RowFault:
    detail = f"byte {error.start + 1} of the line: {error.reason}"
    return RowFault("invalid_utf8", detail, line.decode("utf-8", "backslashreplace").rstrip("\n"))


def _parsed(text: str) -> dict[str, Any] | RowFault:
    try:
        row = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        return RowFault("broken_json", f"{error.msg} at character {error.pos + 1}", text.rstrip("\n"))
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or brackets nested thousands deep.
        return RowFault("broken_json", str(error) or type(error).__name__, text.rstrip("\n"))
    return row if isinstance(row, dict) else _not_an_object(row, text.rstrip("\n"))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values was meant, nobody can say."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _not_an_object(value: object, raw: str) -> RowFault:
    return RowFault("not_an_object", f"it is a {type(value).__name__}", raw)


def read_json(stream: BinaryIO) -> Iterator[NumberedRow]:
    """An array of objects, or an object with exactly one list in it; held in memory whole.

    A file of JSON lines under the name .json is read as what it is.
    """
    content = stream.read().removeprefix(_BOM)
    try:
        document = json.loads(content.decode())
    except UnicodeDecodeError as error:
        yield 1, RowFault("invalid_utf8", f"byte {error.start + 1}: {error.reason}", "")
        return
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and content.lstrip().startswith(b"{"):
            yield from _json_lines(content)
            return
        yield error.lineno, RowFault("broken_json", f"{error.msg} at line {error.lineno}", error.doc[:1000])
        return
    except (ValueError, RecursionError) as error:
        yield 1, RowFault("broken_json", str(error) or type(error).__name__, "")
        return
    rows = document
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        rows = lists[0] if len(lists) == 1 else [document]
    if not isinstance(rows, list):
        yield 1, _not_an_object(rows, str(rows)[:1000])
        return
    for number, row in enumerate(rows, start=1):
        yield number, row if isinstance(row, dict) else _not_an_object(row, str(row)[:1000])


def _json_lines(content: bytes) -> Iterator[NumberedRow]:
    import io

    return read_jsonl(io.BytesIO(content))


def read_csv(stream: BinaryIO, delimiter: str = ",") -> Iterator[NumberedRow]:
    """A header line and one row per record; values are text, and may hold line breaks inside quotes."""
    csv.field_size_limit(MAX_LINE_BYTES)
    faults: list[RowFault] = []

    def lines() -> Iterator[str]:
        for number, line in _lines(stream):
            if line is None:
                faults.append(RowFault("too_long", f"the line has more than {MAX_LINE_BYTES} bytes", ""))
                yield "\n"
                continue
            try:
                yield (line.removeprefix(_BOM) if number == 1 else line).decode()
            except UnicodeDecodeError as error:
                faults.append(_undecodable(line, error))
                yield line.decode("utf-8", "replace")

    reader = csv.reader(lines(), delimiter=delimiter)
    header: list[str] | None = None
    repeated: list[str] = []
    while True:
        first_line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first_line, RowFault("broken_csv", str(error), "")
            continue
        if faults:
            yield first_line, faults[0]
            faults.clear()
        elif not values:
            continue
        elif header is None:
            header = [name.strip() for name in values]
            repeated = sorted({name for name in header if header.count(name) > 1})
        elif repeated:
            detail = f"the header names {', '.join(repeated)} twice"
            yield first_line, RowFault("broken_csv", detail, delimiter.join(values))
        elif len(values) > len(header):
            detail = f"{len(values)} values under {len(header)} column names"
            yield first_line, RowFault("broken_csv", detail, delimiter.join(values))
        else:
            yield first_line, dict(zip(header, values, strict=False))


def read_tsv(stream: BinaryIO) -> Iterator[NumberedRow]:
    """CSV with tabs."""
    return read_csv(stream, "\t")


def read_parquet(stream: BinaryIO) -> Iterator[NumberedRow]:
    """Row by row in batches, numbered from 1. Raises ArrowException where the file is damaged."""
    import pyarrow.parquet as pq

    number = 0
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=1024):
        for row in _batch_rows(batch):
            number += 1
            yield number, row


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | RowFault]:
    try:
        yield from batch.to_pylist()
        return
    except (UnicodeDecodeError, ValueError, OverflowError):
        pass  # One value in it has no Python form; the slow way below tells which row.
    for place in range(batch.num_rows):
        try:
            yield batch.slice(place, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield RowFault("invalid_utf8", str(error), "")
        except (ValueError, OverflowError) as error:
            yield RowFault("wrong_type", str(error), "")


READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


def suffix_of(file_name: str) -> str | None:
    """The key into READERS for a file name, without a final .gz; None where nothing reads it."""
    name = file_name.lower()
    packed = name.endswith(".gz")
    suffix = "." + name.removesuffix(".gz").rpartition(".")[2]
    if suffix not in READERS or (packed and suffix == ".parquet"):
        return None
    return suffix

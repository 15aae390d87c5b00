"""The first pass: rows are canonicalised, cleaned, scored, fingerprinted, and spilled to disk in batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from raytrain.data.dataset import dataset_schema
from raytrain.data.duplicates import FingerprintFiles
from raytrain.data.fingerprints import content_hash
from raytrain.data.layouts import canonicalise
from raytrain.data.quality import quality_score
from raytrain.data.rows import CanonicalRow, RawRow, Reason, RowFault
from raytrain.data.section import DataSection, SourceSection
from raytrain.data.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 2048
_BATCH_CHARS = 2**22
_RAW_CHARS_KEPT = 2000
_SAMPLES_PER_REASON = 2


@dataclass
class SourceTally:
    """What became of the rows of one source; its usable ones begin at `first_row` of all."""

    name: str
    first_row: int
    num_read: int = 0
    num_usable: int = 0
    rejected: dict[Reason, int] = field(default_factory=dict)

    @property
    def num_rejected(self) -> int:
        return sum(self.rejected.values())


class RejectedRows:
    """Writes rejected.jsonl, and keeps the first few of each reason for the data card."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.samples: dict[Reason, list[dict[str, Any]]] = {}

    def add(self, label: str, raw: RawRow, fault: RowFault) -> None:
        entry = {
            "source": label,
            "line": raw.line,
            "reason": fault.reason,
            "detail": fault.detail,
            "raw": _shortened(fault.raw if fault.raw is not None else _as_json(raw.content)),
        }
        # ASCII escapes: a lone surrogate has no UTF-8 form.
        self._stream.write(json.dumps(entry) + "\n")
        kept = self.samples.setdefault(fault.reason, [])
        if len(kept) < _SAMPLES_PER_REASON:
            kept.append(entry)


def _as_json(content: object) -> str:
    try:
        return json.dumps(content, default=str, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError) as error:
        return f"({type(content).__name__} that has no JSON form: {type(error).__name__})"


def _shortened(text: str) -> str:
    if len(text) <= _RAW_CHARS_KEPT:
        return text
    return f"{text[:_RAW_CHARS_KEPT]}… ({len(text)} characters)"


class _Batch:
    """Rows as columns, on their way to Arrow."""

    def __init__(self) -> None:
        self.rows: list[CanonicalRow] = []
        self.hashes: list[bytes] = []
        self.texts: list[bytes] = []
        self.labels: list[str] = []
        self.lines: list[int] = []
        self.num_chars: list[int] = []
        self.quality: list[float] = []
        self.size_chars = 0

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= _BATCH_ROWS or self.size_chars >= _BATCH_CHARS

    def add(self, row: CanonicalRow, label: str, line: int, section: DataSection) -> RowFault | None:
        """Take the row, or say why it cannot be taken."""
        parts = row.parts()
        num_chars = sum(map(len, parts))
        if num_chars < section.min_chars:
            return RowFault("too_short", f"{num_chars} characters, data.min_chars is {section.min_chars}")
        if num_chars > section.max_row_chars:
            return RowFault(
                "too_long", f"{num_chars} characters, data.max_row_chars is {section.max_row_chars}"
            )
        text = "\n".join(parts)
        try:
            hashed = content_hash(row.identity())
            encoded = text.encode()
        except UnicodeEncodeError as error:
            return RowFault("invalid_utf8", f"half of a surrogate pair at character {error.start + 1}")
        self.rows.append(row)
        self.hashes.append(hashed)
        self.texts.append(encoded)
        self.labels.append(label)
        self.lines.append(line)
        self.num_chars.append(num_chars)
        self.quality.append(quality_score(text) if row.image is None else 1.0)
        self.size_chars += num_chars + len(row.image or b"")
        return None

    def to_arrow(self, schema: pa.Schema) -> pa.RecordBatch:
        import pyarrow as pa

        columns = [
            pa.array([one.hex() for one in self.hashes], pa.string()),
            _messages_column([row.messages for row in self.rows], schema.field("messages").type),
            pa.array([row.prompt for row in self.rows], pa.string()),
            pa.array([row.completion for row in self.rows], pa.string()),
            pa.array([row.text for row in self.rows], pa.string()),
            pa.array([row.label for row in self.rows], pa.string()),
            pa.array([row.tokens for row in self.rows], pa.list_(pa.string())),
            pa.array([row.tags for row in self.rows], pa.list_(pa.string())),
            pa.array([row.image for row in self.rows], pa.binary()),
            pa.array(self.labels, pa.string()),
            pa.array(self.lines, pa.int64()),
            pa.array(self.num_chars, pa.int32()),
            pa.array(self.quality, pa.float32()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def _messages_column(conversations: list[tuple[tuple[str, str], ...] | None], kind: pa.DataType) -> pa.Array:
    """Built from flat columns: several times faster than from a list of dictionaries."""
    import pyarrow as pa

    offsets = [0]
    roles: list[str] = []
    contents: list[str] = []
    for messages in conversations:
        for role, content in messages or ():
            roles.append(role)
            contents.append(content)
        offsets.append(len(roles))
    values = pa.StructArray.from_arrays(
        [pa.array(roles, pa.string()), pa.array(contents, pa.string())], fields=list(kind.value_type)
    )
    missing = pa.array([messages is None for messages in conversations], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=kind, mask=missing)


def read_rows(
    sources: list[Source[SourceSection]],
    section: DataSection,
    spill: pa.RecordBatchWriter,
    fingerprints: FingerprintFiles,
    rejected: RejectedRows,
    on_batch: Callable[[list[SourceTally]], None],
) -> list[SourceTally]:
    """Read all sources into `spill` and `fingerprints`; `on_batch` hears the counts so far."""
    schema = dataset_schema()
    tallies: list[SourceTally] = []
    batch = _Batch()
    num_usable = 0

    def flush() -> None:
        nonlocal batch
        if batch.rows:
            spill.write_batch(batch.to_arrow(schema))
            fingerprints.add(batch.hashes, batch.texts)
            batch = _Batch()
        on_batch(tallies)

    for source in sources:
        tally = SourceTally(source.name, first_row=num_usable)
        tallies.append(tally)
        layout, columns = source.section.layout, source.section.columns
        for raw in source.rows():
            if section.max_rows is not None and num_usable >= section.max_rows:
                break
            tally.num_read += 1
            label = f"{source.name}/{raw.file}" if raw.file else source.name
            found: CanonicalRow | RowFault | None
            if isinstance(raw.content, RowFault):
                found = raw.content
            else:
                found = canonicalise(raw.content, layout, columns, source.folder)
                if isinstance(found, CanonicalRow):
                    found = batch.add(found, label, raw.line, section)
            if found is None:
                tally.num_usable += 1
                num_usable += 1
            else:
                tally.rejected[found.reason] = tally.rejected.get(found.reason, 0) + 1
                rejected.add(label, raw, found)
            if batch.is_full or tally.num_read % (16 * _BATCH_ROWS) == 0:
                flush()
    flush()
    return tallies

"""Rows as a model takes them, made once: a `tokens` artifact of flat arrays, memory-mapped by every worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from raytrain.data.batches import Examples
from raytrain.data.dataset import Split, read_split
from raytrain.errors import DataError, IntegrityError
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of

PREPARED_SPLITS: tuple[Split, ...] = ("train", "val")
CHUNK_ROWS = 1024
_LABELS_FILE = "labels.json"

TableT = TypeVar("TableT")
Reject = Callable[[str, str], None]
"""(row_id, reason): a row that cannot be used is told, and left out."""


class Encoder(Protocol):
    """Makes the table of one task. `settings` is all that its arrays depend on beside the rows."""

    settings: dict[str, Any]
    labels: list[str] | None
    """Class names in the order of their numbers, where the task has classes."""

    def encode(self, rows: Iterator[dict[str, Any]], reject: Reject) -> Examples:
        """A dataclass of arrays, and of lists that JSON can hold."""


def prepare_examples(dataset: Artifact, encoder: Encoder, storage: Location, *, fix: str) -> Artifact:
    """The `tokens` artifact of `dataset`, made now or found in the cache.

    Raises DataError where no training row is left, with the counts that say why; `fix` then says what to do.
    """
    settings = {**encoder.settings, "dataset": dataset.digest}
    destination = storage / "tokens" / digest_of(settings).removeprefix("sha256:")[:16]
    try:
        return open_artifact(destination, kind="tokens")
    except IntegrityError:
        pass  # Not there yet, or damaged: it is made anew from the dataset, which has been verified.
    with ArtifactWriter(destination, kind="tokens", parents={"dataset": dataset.digest}) as writer:
        counts: dict[str, dict[str, int]] = {}
        with (writer.path / "rejected.jsonl").open("w", encoding="utf-8") as log:
            for split in PREPARED_SPLITS:
                dropped: dict[str, int] = {}

                def reject(
                    row_id: str, reason: str, split: str = split, dropped: dict[str, int] = dropped
                ) -> None:
                    dropped[reason] = dropped.get(reason, 0) + 1
                    log.write(json.dumps({"split": split, "row_id": row_id, "reason": reason}) + "\n")

                table = encoder.encode(_rows(dataset, split), reject)
                save_table(table, writer.path, split)
                counts[split] = {"rows": len(table), "tokens": int(table.lengths.sum()), **dropped}
        if counts["train"]["rows"] == 0:
            raise DataError(
                "no training row is left after tokenization",
                why=f"of the training rows: {counts['train']}",
                fix=fix,
            )
        if encoder.labels is not None:
            (writer.path / _LABELS_FILE).write_text(json.dumps(encoder.labels, indent=1))
        statistics = {"settings": settings, "splits": counts}
        (writer.path / "statistics.json").write_text(json.dumps(statistics, indent=1, sort_keys=True))
        return writer.commit({"settings": settings}, replace=True)


def _rows(dataset: Artifact, split: Split) -> Iterator[dict[str, Any]]:
    for batch in read_split(dataset, split).to_batches(CHUNK_ROWS):
        yield from batch.to_pylist()


def in_chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """At most CHUNK_ROWS rows at a time: what a tokenizer works on at once."""
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def flat(parts: Sequence[NDArray[Any]], dtype: type[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All parts after each other, and the offsets at which each begins; the last one is the end."""
    lengths = np.array([len(one) for one in parts], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return (np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)), offsets


def save_table(table: Any, folder: Path, split: str) -> None:
    """One file for each field of the table."""
    for field in fields(table):
        value = getattr(table, field.name)
        if isinstance(value, np.ndarray):
            np.save(folder / f"{split}.{field.name}.npy", value)
        else:
            (folder / f"{split}.{field.name}.json").write_text(json.dumps(value))


def load_table(kind: type[TableT], artifact: Artifact, split: Split) -> TableT:
    """Memory-map one split of a `tokens` artifact as a table of the given kind."""
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # every table is a dataclass
        place = artifact.path / f"{split}.{field.name}.npy"
        if place.is_file():
            values[field.name] = np.asarray(np.load(place, mmap_mode="r"))
        else:
            values[field.name] = json.loads(place.with_suffix(".json").read_text())
    return kind(**values)


def read_labels(artifact: Artifact) -> list[str] | None:
    """Class names of a `tokens` artifact in the order of their numbers; None where its task has no classes."""
    place = artifact.path / _LABELS_FILE
    if not place.is_file():
        return None
    labels: list[str] = json.loads(place.read_text())
    return labels


def dropped_rows(artifact: Artifact) -> dict[str, int]:
    """Training rows that could not be used, by reason; the artifact's rejected.jsonl names each."""
    statistics = json.loads((artifact.path / "statistics.json").read_text())
    train: dict[str, int] = statistics["splits"]["train"]
    return {reason: count for reason, count in train.items() if reason not in ("rows", "tokens")}

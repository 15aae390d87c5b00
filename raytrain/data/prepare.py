"""Raw rows to a dataset artifact, in two passes and with memory that hardly grows with the rows.

Pass one reads, cleans and fingerprints rows and spills them to disk; duplicates are then found among the
fingerprints; pass two writes the rows that stay to their splits. The same input gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raytrain.data.card import render_card
from raytrain.data.dataset import SPLITS, dataset_schema
from raytrain.data.duplicates import FingerprintFiles, find_duplicates
from raytrain.data.fingerprints import VERSION as FINGERPRINT_VERSION
from raytrain.data.fingerprints import sketcher_version
from raytrain.data.first_pass import RejectedRows, SourceTally, read_rows
from raytrain.data.rows import REASONS, REMEDIES, Reason
from raytrain.data.second_pass import write_splits
from raytrain.data.section import PREPARED_FIELDS, DataSection, SourceSection
from raytrain.data.sources import Source, open_sources
from raytrain.data.statistics import collect_statistics, sample_pairs
from raytrain.errors import DataError, IntegrityError
from raytrain.storage.artifact import Artifact, ArtifactWriter, delete_artifact, open_artifact
from raytrain.storage.location import Location, translated_errors
from raytrain.storage.manifest import MANIFEST_NAME, digest_of
from raytrain.storage.provenance import collect_provenance

_VERSION = 2
"""Goes up with every change that gives other rows for the same input."""


@dataclass(frozen=True)
class PrepareProgress:
    """Where preparing stands; `note` is for a person: a damaged dataset is made again, say."""

    phase: Literal["open", "read", "deduplicate", "write", "cached", "done"]
    num_rows: int = 0
    num_rejected: int = 0
    num_bytes: int = 0
    total_bytes: int = 0
    note: str | None = None


OnProgress = Callable[[PrepareProgress], None]


def prepare_dataset(
    section: DataSection, storage: Location, *, on_progress: OnProgress | None = None
) -> Artifact:
    """The dataset that `section` describes, at `storage/datasets/<inputs key>`; at once if it is there.

    Raises DataError where sources are missing or damaged, no row is left, or too many had to be rejected (the
    rejected rows are then saved where the error says), and StorageError where `storage` cannot be written.
    """
    tell = on_progress or (lambda _: None)
    tell(PrepareProgress("open"))
    sources = open_sources(section.sources)
    key = inputs_key(section, sources)
    destination = storage / "datasets" / key
    cached = _find_cached(destination, tell)
    if cached is not None:
        return cached
    with ArtifactWriter(destination, kind="dataset") as writer:
        statistics = _build(section, sources, writer.path, storage, key, tell)
        with translated_errors(destination, "write"):
            text = json.dumps(statistics, indent=1, ensure_ascii=True)
            (writer.path / "statistics.json").write_text(text + "\n", encoding="utf-8")
            (writer.path / "data_card.md").write_text(render_card(statistics), encoding="utf-8")
        provenance = collect_provenance(
            config=section.model_dump(mode="json"), sources=[source.provenance for source in sources]
        )
        artifact = writer.commit(provenance, replace=True)
    tell(
        PrepareProgress(
            "done", num_rows=statistics["rows"]["kept"], note=_empty_split_note(section, statistics)
        )
    )
    return artifact


def inputs_key(section: DataSection, sources: list[Source[SourceSection]]) -> str:
    """16 hex digits over everything that the prepared rows depend on."""
    inputs = {
        "version": [_VERSION, FINGERPRINT_VERSION, sketcher_version()],
        "settings": {name: getattr(section, name) for name in PREPARED_FIELDS},
        "sources": [
            {
                "name": source.name,
                "identity": source.identity,
                **source.section.model_dump(include={"columns", "layout", "licence"}),
            }
            for source in sources
        ],
    }
    return digest_of(inputs).removeprefix("sha256:")[:16]


def _find_cached(destination: Location, tell: OnProgress) -> Artifact | None:
    if not (destination / MANIFEST_NAME).exists():
        return None
    try:
        artifact = open_artifact(destination, kind="dataset")
    except IntegrityError as error:
        tell(PrepareProgress("open", note=f"{error.what}; the dataset is made again"))
        # A commit keeps what is there under the same digest, and the manifest of this one is still good.
        delete_artifact(destination)
        return None
    kept = json.loads((artifact.path / "statistics.json").read_text(encoding="utf-8"))["rows"]["kept"]
    tell(PrepareProgress("cached", num_rows=kept, note=f"already prepared: {destination}"))
    return artifact


def _build(
    section: DataSection,
    sources: list[Source[SourceSection]],
    folder: Path,
    storage: Location,
    key: str,
    tell: OnProgress,
) -> dict[str, Any]:
    """Write splits and rejected.jsonl into `folder`; returns the statistics."""
    import pyarrow as pa

    scratch = folder / "scratch"
    spill = scratch / "rows.arrow"
    total_bytes = sum(source.size_bytes for source in sources)

    def told_batch(tallies: list[SourceTally]) -> None:
        tell(
            PrepareProgress(
                "read",
                num_rows=sum(tally.num_read for tally in tallies),
                num_rejected=sum(tally.num_rejected for tally in tallies),
                num_bytes=sum(source.bytes_read for source in sources),
                total_bytes=total_bytes,
            )
        )

    with translated_errors(folder, "write"):
        fingerprints = FingerprintFiles(scratch, section.near_duplicate_threshold)
        with (
            (folder / "rejected.jsonl").open("w", encoding="utf-8") as rejected_stream,
            fingerprints,
            pa.OSFile(str(spill), "wb") as spill_file,
            pa.ipc.new_stream(
                spill_file, dataset_schema(), options=pa.ipc.IpcWriteOptions(compression="lz4")
            ) as spill_writer,
        ):
            rejected = RejectedRows(rejected_stream)
            tallies = read_rows(sources, section, spill_writer, fingerprints, rejected, told_batch)
    _refuse_too_little(section, sources, tallies, folder / "rejected.jsonl", storage / "datasets", key)

    num_usable = fingerprints.num_rows
    tell(PrepareProgress("deduplicate", num_rows=num_usable))
    with translated_errors(folder, "read"):
        duplicates = find_duplicates(fingerprints)
    wanted = {row for pairs in sample_pairs(duplicates) for pair in pairs for row in pair}
    with translated_errors(folder, "write"):
        summaries, samples = write_splits(
            spill,
            fingerprints.content_path,
            duplicates,
            section,
            folder,
            wanted,
            lambda num_rows: tell(PrepareProgress("write", num_rows=num_rows, total_bytes=num_usable)),
        )
        shutil.rmtree(scratch)
    return collect_statistics(section, sources, tallies, duplicates, summaries, samples, rejected)


def _refuse_too_little(
    section: DataSection,
    sources: list[Source[SourceSection]],
    tallies: list[SourceTally],
    rejected: Path,
    folder: Location,
    key: str,
) -> None:
    num_read = sum(tally.num_read for tally in tallies)
    num_rejected = sum(tally.num_rejected for tally in tallies)
    names = ", ".join(source.name for source in sources)
    if num_read == 0:
        raise DataError(
            f"no rows in {names}",
            why="the sources are empty",
            fix="check data.sources; a CSV needs a header and at least one line below it",
        )
    fraction = num_rejected / num_read
    if num_rejected < num_read and fraction <= section.max_rejected_fraction:
        return
    kept_at = _keep_rejected(rejected, folder / f"{key}-rejected.jsonl")
    counts: Counter[Reason] = Counter()
    for tally in tallies:
        counts.update(tally.rejected)
    common = counts.most_common(4)
    reasons = "; ".join(f"{count:,} {reason} ({REASONS[reason]})" for reason, count in common)
    if num_rejected == num_read:
        what = f"no row of {names} can be used: all {num_read:,} were rejected"
        fix = f"look at the reasons in {kept_at}; {REMEDIES.get(common[0][0], 'mend the rows')}"
    else:
        what = f"{num_rejected:,} of {num_read:,} rows were rejected ({fraction:.1%})"
        fix = f"look at the reasons in {kept_at} and mend the rows, or raise data.max_rejected_fraction"
        what += f"; data.max_rejected_fraction allows {section.max_rejected_fraction:.1%}"
    first = json.loads(rejected.open(encoding="utf-8").readline())
    why = f"{reasons}. The first: {first['source']} line {first['line']}: {first['detail']}"
    raise DataError(what, why=why, fix=fix)


def _keep_rejected(rejected: Path, target: Location) -> Location:
    """Copy the rejected rows out of the staging folder, which goes with the failure."""
    with translated_errors(target, "write"):
        if target.is_local:
            shutil.copyfile(rejected, target.path)
        else:
            target.write_bytes(rejected.read_bytes())
    return target


def _empty_split_note(section: DataSection, statistics: dict[str, Any]) -> str | None:
    empty = [
        split
        for split in SPLITS
        if not statistics["splits"][split]["rows"]
        and (split == "train" or getattr(section, f"{split}_fraction") > 0)
    ]
    return f"no rows in the split: {', '.join(empty)}" if empty else None

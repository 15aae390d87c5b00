"""Where a trained model comes from, as far as it is at hand: rows, run, evaluations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, PlatformError
from raytrain.evaluation.contamination.lineage import find_dataset
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.release.bundle.subject import Subject
from raytrain.runs.folder import EVENTS_FILE, LOG_FILE, METRICS_FILE
from raytrain.runs.records import Records, open_records
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location

_STATISTICS_FILE = "statistics.json"
_LONGEST_LOG_BYTES = 2**24
"""A bundle travels, and the scan reads some 30,000 lines a second."""
_PATH = re.compile(r"(?<![\w:/])(?:file://)?~?(?:/[^\s/,;:'\"`()]+){2,}")


@dataclass(frozen=True)
class TrainingCost:
    """Of the run that trained it."""

    run_id: str
    seconds: float | None
    """From its first start to its end, pauses included."""
    tokens_seen: int | None


@dataclass(frozen=True)
class Lineage:
    """What the model card is filled from. A note says of each gap why it is one."""

    subject: Subject
    dataset_digest: str | None
    rows: dict[str, Any] | None
    """statistics.json of the dataset."""
    cost: TrainingCost | None
    evaluations: list[Evaluation]
    notes: list[str]
    logs: Mapping[str, str] = field(default_factory=dict)
    """What the run that trained it wrote down as it went, by the names of its files; without paths."""


def find_lineage(subject: Subject, evaluations: Sequence[Location]) -> Lineage:
    """Raises IntegrityError where an evaluation is damaged, or is of another model."""
    notes: list[str] = []
    records = open_records()
    try:
        rows = _rows(subject, records, notes)
        cost = _cost(subject, records, notes)
    finally:
        records.close()
    found = [_evaluation_of(subject, place) for place in evaluations]
    logs = {} if cost is None else _logs(cost.run_id, notes)
    return Lineage(subject, subject.artifact.manifest.parents.get("dataset"), rows, cost, found, notes, logs)


def without_paths(text: str) -> str:
    """With the last names only of files and folders of this machine: what is written into a bundle travels."""
    return _PATH.sub(lambda found: PurePosixPath(found[0]).name, text)


def _rows(subject: Subject, records: Records, notes: list[str]) -> dict[str, Any] | None:
    try:
        dataset = find_dataset(str(subject.artifact.location), records)
        statistics: dict[str, Any] = json.loads((dataset.path / _STATISTICS_FILE).read_text(encoding="utf-8"))
    except PlatformError as error:
        notes.append(f"The dataset is not at hand where this card was written: {without_paths(error.why)}.")
        return None
    except (OSError, ValueError) as error:
        notes.append(f"The dataset has no statistics that can be read: {without_paths(str(error))}.")
        return None
    return statistics


def _cost(subject: Subject, records: Records, notes: list[str]) -> TrainingCost | None:
    run_id = subject.artifact.manifest.provenance.get("run_id")
    try:
        run = records.get_run(str(run_id))
    except ConfigError:
        notes.append("The run's record is not at hand where this card was written.")
        return None
    ended, started = run.ended_at, run.started_at
    tokens = records.last_value(run.id, "train/tokens_seen")
    seconds = ended - started if ended is not None and started is not None else None
    return TrainingCost(run.id, seconds, int(tokens.value) if tokens else None)


def _logs(run_id: str, notes: list[str]) -> dict[str, str]:
    folder, found = run_folder(run_id), {}
    for name in (LOG_FILE, METRICS_FILE, EVENTS_FILE):
        file = folder / name
        try:
            size = file.stat().st_size
            if size <= _LONGEST_LOG_BYTES:
                found[name] = without_paths(file.read_text(encoding="utf-8", errors="replace"))
            else:
                notes.append(f"The run's {name} is not in the bundle: it has {size / 2**20:.0f} MiB.")
        except OSError as error:
            notes.append(f"The run's {name} is not at hand where this card was written: {error.strerror}.")
    return found


def _evaluation_of(subject: Subject, place: Location) -> Evaluation:
    found = open_evaluation(place)
    model = found.report.model
    answered = model.adapter_digest if subject.is_adapter else model.base_digest
    if answered != subject.digest:
        raise IntegrityError(
            f"{place} is of another model",
            why=f"it is of {answered or model.base_digest}, to be exported is {subject.digest}",
            fix="give an evaluation of what is exported, or leave --evaluation out",
        )
    return found

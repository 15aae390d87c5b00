"""Where a trained model comes from, as far as it is at hand: rows, run, evaluations."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, PlatformError
from raytrain.evaluation.contamination.lineage import find_dataset
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.release.bundle.run_logs import logs_of, without_paths
from raytrain.release.bundle.subject import Subject
from raytrain.runs.cost import Cost
from raytrain.runs.records import Records, open_records
from raytrain.runs.spent import spent
from raytrain.storage.location import Location

_STATISTICS_FILE = "statistics.json"


@dataclass(frozen=True)
class TrainingCost:
    """Of the run that trained it."""

    run_id: str
    spent: Cost | None
    """Over all of its starts, without the time between them; None where its record does not tell when it ran."""
    tokens_seen: int | None


@dataclass(frozen=True)
class Lineage:
    """What the model card is filled from. A note says of each other gap why it is one."""

    subject: Subject
    dataset_digest: str | None
    rows: dict[str, Any] | None
    """statistics.json of the dataset."""
    rows_note: str | None
    """Why there are none."""
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
        rows, rows_note = _rows(subject, records)
        cost = _cost(subject, records, notes)
    finally:
        records.close()
    found = [_evaluation_of(subject, place) for place in evaluations]
    logs = {} if cost is None else logs_of(cost.run_id, notes)
    dataset = subject.artifact.manifest.parents.get("dataset")
    return Lineage(subject, dataset, rows, rows_note, cost, found, notes, logs)


def _rows(subject: Subject, records: Records) -> tuple[dict[str, Any] | None, str | None]:
    """Or why they are not known."""
    try:
        dataset = find_dataset(str(subject.artifact.location), records)
        statistics: dict[str, Any] = json.loads((dataset.path / _STATISTICS_FILE).read_text(encoding="utf-8"))
    except PlatformError as error:
        return None, f"The dataset is not at hand where this card was written: {without_paths(error.why)}."
    except (OSError, ValueError) as error:
        return None, f"The dataset has no statistics that can be read: {without_paths(str(error))}."
    return statistics, None


def _cost(subject: Subject, records: Records, notes: list[str]) -> TrainingCost | None:
    run_id = subject.artifact.manifest.provenance.get("run_id")
    try:
        run = records.get_run(str(run_id))
    except ConfigError:
        notes.append("The run's record is not at hand where this card was written.")
        return None
    tokens = records.last_value(run.id, "train/tokens_seen")
    used = spent(records, run, time.time())
    return TrainingCost(run.id, used if used.hours else None, int(tokens.value) if tokens else None)


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

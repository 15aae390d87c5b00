"""What lies around a trained artifact, as far as it is at hand: its rows, its evaluations, its lock file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.evaluation.report import EvaluationReport
from raytrain.release.bundle.subject import Subject
from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import short_digest

_REPORT = "report.json"
_STATISTICS = "statistics.json"


@dataclass(frozen=True)
class Lineage:
    """What is not given is not stated, beyond the digests that the trained artifact itself names."""

    datasets: tuple[Artifact, ...] = ()
    evaluations: tuple[Artifact, ...] = ()
    """Of the trained artifact itself, not of its base model."""
    lock: Path | None = None
    """File of the versions that the environment was installed from."""

    def check(self, subject: Subject) -> None:
        """Raises IntegrityError where a piece belongs to another artifact."""
        parents = set(subject.artifact.manifest.parents.values())
        for one in self.datasets:
            if one.digest not in parents:
                raise _stranger(one, "it was not trained on these rows", subject)
        for one in self.evaluations:
            if subject.digest not in one.manifest.parents.values():
                raise _stranger(one, "another model was evaluated", subject)

    def reports(self) -> list[EvaluationReport]:
        """Raises IntegrityError where one cannot be read."""
        return [_report(one) for one in self.evaluations]


def rows_of(dataset: Artifact) -> dict[str, Any]:
    """How many rows it keeps, and its sources with their licences; empty where it does not tell."""
    place = dataset.path / _STATISTICS
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        return {
            "kept": int(told["rows"]["kept"]),
            "sources": [(str(one["name"]), one.get("licence")) for one in told["sources"]],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _report(evaluation: Artifact) -> EvaluationReport:
    try:
        content = json.loads((evaluation.path / _REPORT).read_text(encoding="utf-8"))
        return EvaluationReport.from_dict(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{evaluation.location} cannot be read as an evaluation",
            why=f"{type(error).__name__}: {error}",
            fix="evaluate again, or leave it out",
        ) from error


def _stranger(piece: Artifact, why: str, subject: Subject) -> IntegrityError:
    return IntegrityError(
        f"{piece.location} does not belong to {short_digest(subject.digest)}",
        why=f"{why}: {piece.kind} {short_digest(piece.digest)}",
        fix="give what was made of this artifact, or leave it out",
    )

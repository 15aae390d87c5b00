"""What is known of a trained artifact beside itself: its rows, its evaluations, its lock file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.evaluation.report import EvaluationReport
from raytrain.release.bundle.subject import Subject
from raytrain.storage.manifest import short_digest


@dataclass(frozen=True)
class Background:
    """What is not given is not stated, beyond the digests that the trained artifact itself names."""

    rows: Mapping[str, Any] | None = None
    """statistics.json of the dataset that it was trained on."""
    reports: tuple[EvaluationReport, ...] = ()
    """Of the trained artifact itself, not of its base model."""
    lock: Path | None = None
    """File of the versions that the environment was installed from."""

    def check(self, subject: Subject) -> None:
        """Raises IntegrityError where an evaluation is of another model."""
        for one in self.reports:
            answered = one.model.adapter_digest if subject.is_adapter else one.model.base_digest
            if answered != subject.digest:
                raise IntegrityError(
                    f"an evaluation does not belong to {short_digest(subject.digest)}",
                    why=f"it is of {answered or one.model.base_digest or one.model.reference}",
                    fix="give an evaluation of what is exported, or leave it out",
                )

    @property
    def num_rows(self) -> int | None:
        told = (self.rows or {}).get("rows")
        return int(told["kept"]) if isinstance(told, dict) and "kept" in told else None

    @property
    def sources(self) -> list[tuple[str, str | None]]:
        """Names of the rows' sources, and their licences."""
        told = (self.rows or {}).get("sources") or []
        return [(str(one.get("name")), one.get("licence")) for one in told]

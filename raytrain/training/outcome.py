"""How a run ended, as its caller is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `state` is succeeded, or cancelled where it was asked to stop and can be resumed."""

    run_id: str
    state: str
    artifact: str | None
    digest: str | None
    global_step: int
    metrics: dict[str, float] = field(default_factory=dict)
    stopped_by: str | None = None
    was_done_before: bool = False
    phases_s: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "state": self.state,
            "artifact": self.artifact,
            "digest": self.digest,
            "global_step": self.global_step,
            "metrics": self.metrics,
        }

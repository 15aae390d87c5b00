"""The metrics that were told last, kept beside each checkpoint.

Whoever dies between making a step and writing its metrics down, the driver or the worker, may leave a checkpoint that
is further than the records: the workers of a driver that was killed go on for some seconds. Who resumes from it tells
these again, so that no step is without its metrics.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MOST = 32
"""Points that are kept: of more steps, no driver has yet to hear."""


@dataclass
class Told:
    """Of one run, in the order in which they were told."""

    run_id: str
    after: int = 0
    """Of every later step all points are here."""
    points: deque[dict[str, Any]] = field(default_factory=deque)
    """As a message of the kind `metrics` has them: global_step, time, metrics."""

    def add(self, point: dict[str, Any]) -> None:
        self.points.append(point)
        while len(self.points) > _MOST:
            self.after = self.points.popleft()["global_step"]

    def content(self) -> dict[str, Any]:
        """For a checkpoint's provenance, as JSON has it."""
        points = [{**one, "metrics": _as_json(one["metrics"])} for one in self.points]
        return {"run_id": self.run_id, "after": self.after, "points": points}

    def resume(self, global_step: int, content: Mapping[str, Any] | None) -> None:
        """Go on from the checkpoint of this step, which has this content; another run's metrics, and those of a
        checkpoint from before they were kept, are not this one's to tell."""
        self.points.clear()
        self.after = global_step
        if content is None or content["run_id"] != self.run_id:
            return
        self.after = content["after"]
        self.points.extend(
            {**one, "metrics": {key: float(value) for key, value in one["metrics"].items()}}
            for one in content["points"]
            if self.after < one["global_step"] <= global_step
        )


def _as_json(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no word for what is no finite number."""
    return {key: value if math.isfinite(value) else str(value) for key, value in metrics.items()}

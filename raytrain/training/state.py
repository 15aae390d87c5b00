"""All that a run knows about where it stands. What is not here, in the weights or in a generator is not resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from raytrain.data.batches import Position


@dataclass
class TrainingState:
    """The loop's own state; equal on every rank."""

    global_step: int = 0
    """Optimizer steps done, skipped ones included."""
    position: Position = field(default_factory=Position)
    tokens_seen: int = 0
    """Tokens of all rows so far, padding not counted."""
    num_skipped_steps: int = 0
    """Steps whose gradients were not finite."""
    best_value: float | None = None
    """Best `monitor` so far."""
    best_step: int | None = None
    num_evals_since_best: int = 0
    last_eval_step: int | None = None
    last_eval: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingState:
        return cls(**{**values, "position": Position(**values["position"])})

    def observe_evaluation(
        self, metrics: dict[str, float], *, monitor: str, mode: str, min_delta: float
    ) -> bool:
        """Take in an evaluation; true where it is the best so far."""
        self.last_eval_step = self.global_step
        self.last_eval = dict(metrics)
        value = metrics.get(monitor)
        if value is None:
            return False
        if is_better(value, self.best_value, mode, min_delta):
            self.best_value, self.best_step, self.num_evals_since_best = value, self.global_step, 0
            return True
        self.num_evals_since_best += 1
        return False

    def monitored(self, monitor: str) -> float | None:
        """The monitored value of an evaluation at this very step."""
        return self.last_eval.get(monitor) if self.last_eval_step == self.global_step else None


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """NaN is never better than anything."""
    if value != value:
        return False
    if best is None:
        return True
    return value < best - min_delta if mode == "min" else value > best + min_delta

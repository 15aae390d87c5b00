"""How fast the steps go."""

from __future__ import annotations

import time


class StepClock:
    """Wall time, steps and tokens between two records."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._num_steps = 0
        self._num_tokens = 0

    def count(self, num_tokens: int) -> None:
        self._num_steps += 1
        self._num_tokens += num_tokens

    def lap(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        metrics = {
            "train/step_s": seconds / self._num_steps,
            "train/tokens_per_second": self._num_tokens / seconds,
        }
        self._since, self._num_steps, self._num_tokens = now, 0, 0
        return metrics

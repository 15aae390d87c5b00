"""A hook for the tests: notes the rows that every rank really saw, and holds the run at a step while a test acts.

Copied beside each test's own `pace.json`, so that runs of different tests do not meet.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from raytrain.training import loop
from raytrain.training.hooks import Hook
from raytrain.training.job import Job

HERE = Path(__file__).parent
_LONGEST_HOLD_S = 120.0


class Watch(Hook):
    """Writes seen.jsonl: one line a step and process, with the rows that were collated for it."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.num_calls = 0
        self.num_micro_batches = 0  # of the present step
        micro_batch = loop.micro_batch

        def noting(job: Job, rows: Any) -> Any:
            if self.num_micro_batches > 0:
                self._hold(self.num_calls + 1, micro_batch=self.num_micro_batches)
            self.num_micro_batches += 1
            self.rows.extend(int(row) for row in rows)
            return micro_batch(job, rows)

        loop.micro_batch = noting

    def on_step_end(self, global_step: int, metrics: dict[str, float]) -> None:
        self.num_calls += 1
        line = {"step": global_step, "pid": os.getpid(), "rows": self.rows, "calls": self.num_calls}
        with (HERE / "seen.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self.rows = []
        self.num_micro_batches = 0
        self._hold(global_step, micro_batch=None)

    def _hold(self, step: int, micro_batch: int | None) -> None:
        """Stay here for as long as pace.json names this very place."""
        here = {"hold_at": step, "before_micro_batch": micro_batch}
        deadline = time.monotonic() + _LONGEST_HOLD_S
        while self._pace() == here and time.monotonic() < deadline:
            (HERE / f"held-{os.getpid()}").write_text(json.dumps(here))
            time.sleep(0.05)

    def _pace(self) -> dict[str, Any] | None:
        try:
            pace: dict[str, Any] = json.loads((HERE / "pace.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pace

    def state_dict(self) -> dict[str, Any]:
        return {"num_calls": self.num_calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_calls = state["num_calls"]

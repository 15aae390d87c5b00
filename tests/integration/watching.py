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

HERE = Path(__file__).parent
_LONGEST_HOLD_S = 120.0


class Watch(Hook):
    """Writes seen.jsonl: one line a step and process, with the rows that were collated for it."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.num_calls = 0
        collate = loop.collate

        def noting(table: Any, rows: Any, pad_id: int) -> Any:
            self.rows.extend(int(row) for row in rows)
            return collate(table, rows, pad_id)

        loop.collate = noting

    def on_step_end(self, global_step: int, metrics: dict[str, float]) -> None:
        self.num_calls += 1
        line = {"step": global_step, "pid": os.getpid(), "rows": self.rows, "calls": self.num_calls}
        with (HERE / "seen.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self.rows = []
        deadline = time.monotonic() + _LONGEST_HOLD_S
        while self._held_at() == global_step and time.monotonic() < deadline:
            time.sleep(0.05)

    def _held_at(self) -> int | None:
        pace = HERE / "pace.json"
        try:
            held: int | None = json.loads(pace.read_text())["hold_at"]
        except (FileNotFoundError, ValueError):
            return None
        return held

    def state_dict(self) -> dict[str, Any]:
        return {"num_calls": self.num_calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_calls = state["num_calls"]

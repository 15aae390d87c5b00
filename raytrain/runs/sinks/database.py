"""The metrics table of the records database."""

from __future__ import annotations

from collections.abc import Mapping

from raytrain.runs.record_types import RunState
from raytrain.runs.records import Records


class DatabaseSink:
    """The run must be recorded before its metrics."""

    def __init__(self, records: Records, run_id: str) -> None:
        self._records = records
        self._run_id = run_id

    def open(self) -> None:
        """Nothing to do: each call is a transaction of its own."""

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        self._records.add_metrics(self._run_id, [(global_step, time, metrics)])

    def rewind(self, global_step: int) -> None:
        self._records.forget_metrics_after(self._run_id, global_step)

    def close(self, state: RunState) -> None:
        """The state is recorded by whoever ends the run."""

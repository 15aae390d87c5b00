"""The contract of every place that metrics are written to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from raytrain.runs.record_types import RunState


class MetricSink(Protocol):
    """Called on the driver, by one thread: open, then write and rewind in any order, then close.

    A resumed run opens a new sink over what the killed one left and rewinds it to the step of the checkpoint.
    After that a series has one value a step, whatever happened before.
    """

    def open(self) -> None:
        """Make ready to append to what is there, mending what a crash left half-written."""

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        """What was measured at a step; NaN and the infinities are values too. `time`: epoch seconds."""

    def rewind(self, global_step: int) -> None:
        """Training goes on from `global_step`: later steps will be measured and written again."""

    def close(self, state: RunState) -> None:
        """The run has ended, or is left for another process to go on with; all that was written stands."""

"""TensorBoard event files, written by tensorboard's own writer without torch."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raytrain.runs.record_types import RunState

_FLUSH_EVERY_S = 10


class TensorBoardSink:
    """Adds an event file at each opening; a rewind makes TensorBoard drop what is measured again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def open(self) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # TensorBoard reads the files of a folder in the order of their names, which begin with the second.
        while any(self.folder.glob(f"events.out.tfevents.{int(clock.time()):010d}.*")):
            clock.sleep(0.05)
        self._writer = EventFileWriter(str(self.folder), flush_secs=_FLUSH_EVERY_S)

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=float(value)) for key, value in metrics.items()]
        self._writer.add_event(Event(wall_time=time, step=global_step, summary=Summary(value=values)))

    def rewind(self, global_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # A session start tells the reader to purge what it has of this step and later.
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=clock.time(), step=global_step + 1, session_log=start))

    def close(self, state: RunState) -> None:  # noqa: ARG002 - event files know no states
        if self._writer is not None:
            self._writer.close()
            self._writer = None

"""metrics.jsonl in the run's folder: the complete series, from which any other place can be refilled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from raytrain.runs.folder import mend_last_line, metric_line
from raytrain.runs.record_types import MetricRow, RunState
from raytrain.storage.location import translated_errors, write_atomically


class JsonlSink:
    """One object a line, flushed, so that a killed process loses nothing. A full disk is a StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: TextIO | None = None

    def open(self) -> None:
        with translated_errors(self.path, "write"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mend_last_line(self.path)
            self._stream = self.path.open("a", encoding="utf-8")

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        assert self._stream is not None, "open() comes first"
        line = metric_line(
            MetricRow(global_step, time, {key: float(value) for key, value in metrics.items()})
        )
        with translated_errors(self.path, "write"):
            self._stream.write(line + "\n")
            self._stream.flush()

    def rewind(self, global_step: int) -> None:
        self.close("running")
        with translated_errors(self.path, "write"):
            lines = self.path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= global_step]
            if len(kept) < len(lines):
                write_atomically(self.path, b"".join(kept))
        self.open()

    def close(self, state: RunState) -> None:  # noqa: ARG002 - the file knows no states
        if self._stream is not None:
            with translated_errors(self.path, "write"):
                self._stream.close()
            self._stream = None


def _step_of(line: bytes) -> float:
    """Infinite for a line that a crash broke: no rewind keeps it."""
    try:
        return int(json.loads(line)["global_step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

"""Rows that are written beside the answering: nobody waits for them, and where they come too fast some are left out."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.storage.location import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
_MOST_WAITING = 4096
_MOST_ROWS, _MOST_CHARACTERS = 1024, 8 << 20
"""Of a file."""
_MOST_CHARACTERS_WAITING = 32 << 20
"""Which are one to four bytes each: clients choose how long rows are, and memory is for answers."""

Row = Mapping[str, Any]


class ParquetLog:
    """Files of one kind in a folder that is its owner's alone. A thread of its own makes each row fit to be kept."""

    def __init__(self, folder: Path, kind: str, schema: pa.Schema, flush_s: float) -> None:
        """flush_s: a row is in a file so soon after it was put, or when the file is full."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._kind, self._schema, self._flush_s = folder, kind, schema, flush_s
        self._rows: queue.Queue[tuple[Row, int] | None] = queue.Queue(_MOST_WAITING)
        self._num_characters = 0
        self._lock = threading.Lock()
        self.num_left_out = 0
        """For want of room, or because they could not be written."""
        self._thread = threading.Thread(target=self._run, name=f"{kind}-log", daemon=True)
        self._thread.start()

    def put(self, row: Row, num_characters: int) -> None:
        """Never waits. num_characters: of the texts that the row keeps in memory until it is written."""
        if not self._has_taken(num_characters):
            self.num_left_out += 1
            return
        try:
            self._rows.put_nowait((row, num_characters))
        except queue.Full:
            self._give_back(num_characters)
            self.num_left_out += 1

    def close(self) -> None:
        """Returns when everything that was put is written."""
        self._rows.put(None)
        self._thread.join()

    def _has_taken(self, num_characters: int) -> bool:
        with self._lock:
            if self._num_characters + num_characters > _MOST_CHARACTERS_WAITING:
                return False
            self._num_characters += num_characters
            return True

    def _give_back(self, num_characters: int) -> None:
        with self._lock:
            self._num_characters -= num_characters

    def _run(self) -> None:
        rows: list[Row] = []
        num_characters = 0
        due = time.monotonic() + self._flush_s
        while True:
            try:
                put = self._rows.get(timeout=max(0.0, due - time.monotonic()))
                if put is None:
                    self._write(rows)
                    return
                rows.append(put[0])
                num_characters += put[1]
            except queue.Empty:
                pass
            is_full = len(rows) >= _MOST_ROWS or num_characters >= _MOST_CHARACTERS
            if rows and (is_full or time.monotonic() >= due):
                self._write(rows)
                self._give_back(num_characters)
                rows, num_characters = [], 0
            if not rows:
                due = time.monotonic() + self._flush_s

    def _write(self, rows: list[Row]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not rows:
            return
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        path = self._folder / f"{self._kind}-{moment}-{uuid.uuid4().hex[:8]}.parquet"
        made = [one for one in map(self._made, rows) if one is not None]
        try:
            content = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(made, schema=self._schema), content)
            write_atomically(path, content.getvalue().to_pybytes())
        except Exception as error:  # noqa: BLE001 - whatever a row or a disk holds, the rows after these are written
            self.num_left_out += len(made)
            _log.error("%d rows of the %s log are lost: %s", len(made), self._kind, type(error).__name__)

    def _made(self, row: Row) -> Row | None:
        """With what was left to be computed; None where that fails."""
        try:
            return {**row, **{key: one() for key, one in row.items() if callable(one)}}
        except Exception as error:  # noqa: BLE001 - one row's fault is no other's
            self.num_left_out += 1
            _log.error("a row of the %s log is lost: %s", self._kind, type(error).__name__)
            return None

"""A run's folder on this machine, from which its records can be rebuilt.

run.json (what it is), recipe.yaml (resolved), metrics.jsonl, events.jsonl, log.txt, tensorboard/.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raytrain.runs.record_types import MetricRow, RunRecord
from raytrain.storage.home import run_folder
from raytrain.storage.location import translated_errors, write_atomically

RUN_FILE = "run.json"
RECIPE_FILE = "recipe.yaml"
METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "log.txt"
TENSORBOARD_FOLDER = "tensorboard"

_DESCRIBED = ("id", "kind", "name", "config", "config_digest", "created_at", "storage_uri", "max_steps")


def describe_run(run: RunRecord) -> Path:
    """Make the run's folder with run.json in it, unless it is there; returns the folder."""
    folder = run_folder(run.id)
    place = folder / RUN_FILE
    with translated_errors(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            described = {name: getattr(run, name) for name in _DESCRIBED}
            write_atomically(place, (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def metric_line(row: MetricRow) -> str:
    """One line of metrics.jsonl: strict JSON, so NaN and the infinities are written as strings."""
    metrics = {key: as_json_number(value) for key, value in row.metrics.items()}
    return json.dumps(
        {"global_step": row.global_step, "time": row.time, "metrics": metrics}, ensure_ascii=False
    )


def as_json_number(value: float) -> float | str:
    """JSON has no NaN: "NaN", "Infinity" and "-Infinity", which float() of most languages reads back."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_metric_rows(path: Path) -> Iterator[MetricRow]:
    """The rows of a metrics.jsonl; a line that a crash left broken is passed over."""
    for line in read_json_lines(path):
        try:
            metrics = {str(key): float(value) for key, value in line["metrics"].items()}
            row = MetricRow(int(line["global_step"]), float(line["time"]), metrics)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        yield row


def read_json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a .jsonl file (none where there is no file); a broken line is passed over."""
    with translated_errors(path, "read"):
        try:
            stream = path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        with stream:
            for line in stream:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    yield value


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one object; a half-written line before it, left by a crash, is cut off first."""
    with translated_errors(path, "write"):
        mend_last_line(path)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def mend_last_line(path: Path) -> None:
    """Make the file end with a whole line: an unended last line is completed if it is JSON, else cut off."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("r+b") as stream:
        stream.seek(-1, 2)
        if stream.read(1) == b"\n":
            return
        tail_start = _start_of_last_line(path)
        stream.seek(tail_start)
        tail = stream.read()
        try:
            json.loads(tail)
        except ValueError:
            stream.truncate(tail_start)
        else:
            stream.write(b"\n")


def _start_of_last_line(path: Path) -> int:
    block = 65536
    with path.open("rb") as stream:
        position = stream.seek(0, 2)
        while position > 0:
            start = max(0, position - block)
            stream.seek(start)
            newline = stream.read(position - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
    return 0

"""What a run's folder shows: whole checkpoints, logs that can be read, numbers that are numbers, and one series of
metrics in every place that it flows to."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raytrain.errors import IntegrityError
from raytrain.runs.folder import EVENTS_FILE, METRICS_FILE, TENSORBOARD_FOLDER, read_metric_rows
from raytrain.runs.records import open_records
from raytrain.training.checks.legs import Line
from raytrain.training.checks.trace import read_checkpoints
from raytrain.training.checks.verdict import Finding

Series = Mapping[str, Mapping[int, float]]
"""Values by metric key and step."""


def examine(line: Line, name: str) -> list[Finding]:
    """All that a finished run of a check left behind. `name` says which run it was."""
    jsonl = series_of_jsonl(line.run_folder / METRICS_FILE)
    return [
        judge_numbers(jsonl, name),
        judge_checkpoints(line, name),
        judge_lines([line.run_folder / METRICS_FILE, line.run_folder / EVENTS_FILE], name),
        judge_flow(jsonl, series_of_database(line), series_of_tensorboard(line), name),
    ]


def judge_numbers(series: Series, name: str) -> Finding:
    """No NaN and no infinity anywhere, and a loss there is."""
    title = f"numbers ({name})"
    broken = [
        f"{key} at step {step} is {value}"
        for key, values in series.items()
        for step, value in values.items()
        if not math.isfinite(value)
    ]
    count = sum(len(values) for values in series.values())
    if broken:
        return Finding(
            title, "failed", f"{len(broken)} of {count} are none: {broken[0]}", {"num_values": count}
        )
    if not series.get("train/loss"):
        return Finding(title, "failed", "no training loss was measured", {"num_values": count})
    return Finding(title, "passed", f"{count} values, no NaN and no infinity", {"num_values": count})


def judge_checkpoints(line: Line, name: str) -> Finding:
    """Every file of every checkpoint against its digest."""
    title = f"checkpoints ({name})"
    try:
        found = read_checkpoints(line.checkpoints)
    except IntegrityError as error:
        return Finding(title, "failed", error.line)
    if not found:
        return Finding(title, "failed", "there is none", {"num_checkpoints": 0})
    num_files = sum(len(one.manifest.files) for one in found.values())
    return Finding(
        title, "passed", f"{len(found)} checkpoints, {num_files} files verified by digest",
        {"num_checkpoints": len(found), "num_files": num_files},
    )  # fmt: skip


def judge_lines(files: list[Path], name: str) -> Finding:
    """Each line of the logs is one JSON object; the readers of raytrain would pass over one that is not."""
    title, count = f"logs ({name})", 0
    for file in files:
        if not file.is_file():
            return Finding(title, "failed", f"there is no {file.name}")
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            count += 1
            if not _is_object(text):
                return Finding(
                    title, "failed", f"{file.name}, line {number}, is no JSON object: {text[:80]!r}"
                )
    told = " and ".join(file.name for file in files)
    return Finding(title, "passed", f"{count} lines of {told} parse", {"num_lines": count})


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def judge_flow(jsonl: Series, database: Series, tensorboard: Series, name: str) -> Finding:
    """The same keys, steps and values in all three; TensorBoard keeps 32 bits of each."""
    title = f"metrics flow ({name})"
    for place, other in (("the database", database), ("TensorBoard", tensorboard)):
        difference = _first_difference(jsonl, other, is_short=place == "TensorBoard")
        if difference is not None:
            return Finding(title, "failed", f"metrics.jsonl and {place} differ: {difference}")
    count = sum(len(values) for values in jsonl.values())
    return Finding(
        title, "passed", f"{count} values of {len(jsonl)} metrics in the database, metrics.jsonl and TensorBoard",
        {"num_values": count},
    )  # fmt: skip


def _first_difference(ours: Series, theirs: Series, *, is_short: bool) -> str | None:
    for key in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(key, {}), theirs.get(key, {})
        for step in sorted(here.keys() | there.keys()):
            if step not in here or step not in there:
                return f"{key} at step {step} is in one of the two only"
            expected = float(np.float32(here[step])) if is_short else here[step]
            if expected != there[step] and not (math.isnan(expected) and math.isnan(there[step])):
                return f"{key} at step {step} is {here[step]!r} and {there[step]!r}"
    return None


def series_of_jsonl(path: Path) -> Series:
    """A later line for the same step and key is a fault of the writer, and shows as a difference to the others."""
    series: dict[str, dict[int, float]] = {}
    for row in read_metric_rows(path):
        for key, value in row.metrics.items():
            series.setdefault(key, {})[row.global_step] = value
    return series


def series_of_database(line: Line) -> Series:
    records = open_records(f"sqlite:///{line.home / 'raytrain.db'}")
    try:
        found = records.metrics(line.run_id)
    finally:
        records.close()
    return {key: {point.global_step: point.value for point in points} for key, points in found.items()}


def series_of_tensorboard(line: Line) -> Series:
    """As TensorBoard itself reads the folder, dropping what was measured again after a kill."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # It warns of what a kill is meant to leave here: points that were measured again.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    reader = EventAccumulator(str(line.run_folder / TENSORBOARD_FOLDER), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        key: {event.step: float(event.value) for event in reader.Scalars(key)}
        for key in reader.Tags()["scalars"]
    }

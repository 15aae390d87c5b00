"""What a finished trial is judged by: the metrics of its run, and some that follow from its result."""

from __future__ import annotations

import math
import re

from raytrain.runs.records import Records
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec


def measured(records: Records, spec: RunSpec, result: TrainResult) -> dict[str, float]:
    """Metrics by name, of the weights that the run hands over, all of them finite."""
    found = dict(result.metrics)
    monitor = spec.train.monitor
    if spec.train.result == "best":
        values = [
            point.value
            for point in records.metrics(result.run_id, [monitor]).get(monitor, [])
            if math.isfinite(point.value)
        ]
        if values:
            found[monitor] = min(values) if spec.train.mode == "min" else max(values)
    if result.artifact is not None:
        artifact = open_artifact(Location(result.artifact), verify=False)
        found["result/bytes"] = float(artifact.manifest.size_bytes)
    run = records.get_run(result.run_id)
    if run.started_at is not None and run.ended_at is not None:
        found["run/duration_s"] = run.ended_at - run.started_at
    for event in records.events(result.run_id):
        trainable = re.search(r"(\d+) trainable parameters", event.message) if event.kind == "plan" else None
        if trainable is not None:
            found["result/num_trainable"] = float(trainable[1])
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}

"""What a finished trial is judged by: the metrics of its run, and some that follow from its result."""

from __future__ import annotations

import math
import re
import time

from raytrain.errors import ConfigError
from raytrain.runs.cost import active_seconds
from raytrain.runs.records import Records
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec


def seconds_of(records: Records, run_id: str) -> float:
    """How long a run was carried, all of its starts together; 0 where nobody knows of it."""
    try:
        run = records.get_run(run_id)
    except ConfigError:
        return 0.0
    return active_seconds(run, records.events(run_id), time.time())


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
    found["run/duration_s"] = seconds_of(records, result.run_id)
    for event in records.events(result.run_id):
        trainable = re.search(r"(\d+) trainable parameters", event.message) if event.kind == "plan" else None
        if trainable is not None:
            found["result/num_trainable"] = float(trainable[1])
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}

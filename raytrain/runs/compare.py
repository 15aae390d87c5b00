"""What differs between runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raytrain.runs.record_types import MetricPoint

_ABSENT = "(not set)"
_LOWER_IS_BETTER = ("loss", "perplexity", "norm", "seconds", "bytes", "error", "skipped", "latency")


@dataclass(frozen=True)
class MetricSummary:
    num_points: int
    last: MetricPoint
    best: MetricPoint | None
    """None where no value is finite."""


def config_differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Dotted config keys whose values are not the same in all runs, each with its value by run."""
    flattened = {run_id: flat(config) for run_id, config in configs.items()}
    keys = sorted({key for values in flattened.values() for key in values})
    table = {key: {run_id: values.get(key, _ABSENT) for run_id, values in flattened.items()} for key in keys}
    return {
        key: row
        for key, row in table.items()
        if any(value != next(iter(row.values())) for value in row.values())
    }


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys, as overrides name them; a list is one value."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def lower_is_better(key: str) -> bool:
    return any(word in key for word in _LOWER_IS_BETTER)


def summarise(key: str, points: Sequence[MetricPoint]) -> MetricSummary:
    """`points` are in the order of steps, at least one; of equal bests the first counts."""
    finite = [point for point in points if math.isfinite(point.value)]
    choose = min if lower_is_better(key) else max
    best = choose(finite, key=lambda point: point.value) if finite else None
    return MetricSummary(len(points), points[-1], best)

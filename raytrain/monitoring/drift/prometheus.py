"""Numbers of the youngest window for Prometheus, as a file that node_exporter's textfile collector reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raytrain.storage.location import translated_errors


def write_metrics(path: Path, reports: list[dict[str, Any]]) -> None:
    """reports: of one watch against its reference, the oldest first; the file is replaced as a whole."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, told: str, *labels: str) -> Any:
        return Gauge(f"raytrain_drift_{name}", told, ["watch", *labels], registry=registry)

    youngest = reports[-1]
    watch, window = youngest["watch"], youngest["window"]
    gauge("windows", "Windows judged since the reference was frozen").labels(watch).set(window["number"])
    alarms = sum(one["is_alarm"] for one in reports)
    gauge("alarms", "Windows among the youngest 200 that are an alarm").labels(watch).set(alarms)
    gauge("alarm", "1 where the youngest window is an alarm").labels(watch).set(youngest["is_alarm"])
    gauge("score", "Of the furthest feature, as a share of its threshold").labels(watch).set(
        youngest["score"]
    )
    gauge("window_rows", "Rows of the youngest window").labels(watch).set(window["num_rows"])
    if window["ends_at"] is not None:
        gauge("window_end_seconds", "When the youngest window ended").labels(watch).set(window["ends_at"])
    calibrated = youngest["calibrated"]
    if calibrated is not None:
        gauge("p_value", "Of the youngest window").labels(watch).set(calibrated["p_value"])
        value = gauge("distance", "From the reference", "feature", "distance")
        threshold = gauge("threshold", "From which on it is an alarm", "feature", "distance")
        for one in calibrated["features"]:
            labels = watch, one["name"], one["distance"]
            value.labels(*labels).set(one["value"])
            threshold.labels(*labels).set(one["threshold"])
    with translated_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)

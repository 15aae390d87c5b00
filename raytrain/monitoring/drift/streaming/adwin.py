"""ADWIN: Bifet & Gavaldà 2007, "Learning from time-changing data with adaptive windowing"."""

from __future__ import annotations

from raytrain.monitoring.drift.streaming.detector import river_drift

USUAL_DELTA = 0.002


class Adwin:
    """Drops the older part of its window when its mean is surely another than that of the younger part."""

    def __init__(self, delta: float = USUAL_DELTA) -> None:
        self._detector = river_drift().ADWIN(delta=delta)

    def update(self, value: float) -> bool:
        self._detector.update(value)
        return bool(self._detector.drift_detected)

"""Page-Hinkley: Page 1954, "Continuous inspection schemes"."""

from __future__ import annotations

from raytrain.monitoring.drift.streaming.detector import river_drift


class PageHinkley:
    """Sums what values differ from their mean so far, in either direction, up to a limit in their own unit."""

    def __init__(self) -> None:
        self._detector = river_drift().PageHinkley()

    def update(self, value: float) -> bool:
        self._detector.update(value)
        return bool(self._detector.drift_detected)

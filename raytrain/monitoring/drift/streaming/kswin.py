"""KSWIN: Raab, Heusinger & Schleif 2020, "Reactive soft prototype computing for concept drift streams"."""

from __future__ import annotations

from raytrain.monitoring.drift.streaming.detector import river_drift

USUAL_ALPHA = 0.0001
"""river's own 0.005 is a test at each step, and fires now and then where nothing changes."""


class Kswin:
    """Holds the youngest 30 of its 100 values against as many of the others, by Kolmogorov and Smirnov's test."""

    def __init__(self, alpha: float = USUAL_ALPHA, seed: int = 0) -> None:
        self._detector = river_drift().KSWIN(alpha=alpha, seed=seed)

    def update(self, value: float) -> bool:
        self._detector.update(value)
        return bool(self._detector.drift_detected)

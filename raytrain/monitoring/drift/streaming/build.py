"""The detector that a rule names."""

from __future__ import annotations

from raytrain.monitoring.drift.section import StreamRule
from raytrain.monitoring.drift.streaming.adwin import USUAL_DELTA, Adwin
from raytrain.monitoring.drift.streaming.detector import Detector
from raytrain.monitoring.drift.streaming.kswin import USUAL_ALPHA, Kswin
from raytrain.monitoring.drift.streaming.page_hinkley import PageHinkley


def build_detector(rule: StreamRule) -> Detector:
    """Raises ConfigError where river is not installed."""
    if rule.detector == "adwin":
        return Adwin(rule.delta or USUAL_DELTA)
    if rule.detector == "kswin":
        return Kswin(rule.delta or USUAL_ALPHA)
    return PageHinkley()

"""Kolmogorov-Smirnov."""

from __future__ import annotations

import numpy as np

from raytrain.monitoring.drift.distances.distance import Distance, Floats, both_filled, steps_apart


def ks_statistic(reference: Floats, window: Floats, _positions: Floats | None = None) -> Floats:
    """The largest distance between the two cumulative distributions, from 0 to 1. Smirnov 1939."""
    largest = np.abs(steps_apart(reference, window)).max(axis=-1, initial=0.0)
    return np.where(both_filled(reference, window), np.minimum(largest, 1.0), 0.0)


KS = Distance("ks", frozenset({"numeric"}), ks_statistic)

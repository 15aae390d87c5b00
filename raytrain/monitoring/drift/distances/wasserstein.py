"""The earth mover's distance."""

from __future__ import annotations

import numpy as np

from raytrain.monitoring.drift.distances.distance import Distance, Floats, both_filled, steps_apart


def wasserstein(reference: Floats, window: Floats, positions: Floats | None) -> Floats:
    """How far a row must go on average for one sample to become the other, in the feature's own unit.

    Vallender 1974, "Calculation of the Wasserstein distance between probability distributions on the line".
    """
    assert positions is not None, "only numbers have places"
    moved = np.abs(steps_apart(reference, window)[..., :-1]) * np.diff(positions)
    return np.where(both_filled(reference, window), moved.sum(axis=-1), 0.0)


WASSERSTEIN = Distance("wasserstein", frozenset({"numeric"}), wasserstein)

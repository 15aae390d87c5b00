"""The energy distance."""

from __future__ import annotations

import numpy as np

from raytrain.monitoring.drift.distances.distance import Distance, Floats, both_filled, steps_apart


def energy(reference: Floats, window: Floats, positions: Floats | None) -> Floats:
    """The square root of 2 E|X - Y| - E|X - X'| - E|Y - Y'|, which on a line is twice the area under the
    squared difference of the cumulative distributions.

    Székely & Rizzo 2013, "Energy statistics: a class of statistics based on distances".
    """
    assert positions is not None, "only numbers have places"
    area = steps_apart(reference, window)[..., :-1] ** 2 * np.diff(positions)
    return np.where(both_filled(reference, window), np.sqrt(2.0 * area.sum(axis=-1)), 0.0)


ENERGY = Distance("energy", frozenset({"numeric"}), energy)

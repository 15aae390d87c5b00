"""Jensen-Shannon."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from raytrain.monitoring.drift.distances.distance import Distance, Floats, both_filled, shares


def js_distance(reference: Floats, window: Floats, _positions: Floats | None = None) -> Floats:
    """The square root of the divergence to base 2, which is a metric from 0 to 1.

    Endres & Schindelin 2003, "A new metric for probability distributions", IEEE Transactions on Information Theory 49.
    """
    p, q = shares(reference), shares(window)
    middle = (p + q) / 2
    # H(middle) - (H(p) + H(q)) / 2
    nats = (xlogy(p, p) + xlogy(q, q)).sum(axis=-1) / 2 - xlogy(middle, middle).sum(axis=-1)
    found = np.sqrt(np.clip(nats / np.log(2), 0.0, 1.0))
    return np.where(both_filled(reference, window), found, 0.0)


JS = Distance("js", frozenset({"numeric", "categorical", "counts"}), js_distance)

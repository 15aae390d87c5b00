"""The population stability index."""

from __future__ import annotations

import numpy as np

from raytrain.monitoring.drift.distances.distance import Distance, Floats, both_filled, shares

_NONE_SEEN = 0.5
"""What a bin that one side lacks counts there: half a row, so that one new category is no infinity."""


def psi(reference: Floats, window: Floats, _positions: Floats | None = None) -> Floats:
    """Sum of (q - p) ln(q / p), which is Jeffreys's divergence.

    Kullback & Leibler 1951; as a rule of thumb of credit scoring 0.1 is a change and 0.25 a great one: Siddiqi 2006,
    "Credit risk scorecards". Bins that both sides lack say nothing.
    """
    used = (reference + window) > 0
    p = shares(np.where(used, np.maximum(reference, _NONE_SEEN), 0.0))
    q = shares(np.where(used, np.maximum(window, _NONE_SEEN), 0.0))
    logs = np.log(np.where(used, q, 1.0)) - np.log(np.where(used, p, 1.0))
    return np.where(both_filled(reference, window), ((q - p) * logs).sum(axis=-1), 0.0)


PSI = Distance("psi", frozenset({"numeric", "categorical", "counts"}), psi)

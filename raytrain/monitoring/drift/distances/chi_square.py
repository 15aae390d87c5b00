"""Pearson's chi-square."""

from __future__ import annotations

import numpy as np

from raytrain.monitoring.drift.distances.distance import Distance, Floats, both_filled


def chi_square(reference: Floats, window: Floats, _positions: Floats | None = None) -> Floats:
    """The statistic of the table with the two samples as rows and the bins as columns. Pearson 1900.

    No bin needs five rows here: what it would be by chance is known from permutations, not from its distribution.
    """
    by_bin = reference + window
    of_reference = reference.sum(axis=-1, keepdims=True)
    of_window = window.sum(axis=-1, keepdims=True)
    # Both sides' (seen - expected)² / expected, put together.
    apart = (reference * of_window - window * of_reference) ** 2
    weights = by_bin * of_reference * of_window
    terms = np.divide(apart, weights, out=np.zeros_like(apart), where=weights > 0)
    return np.where(both_filled(reference, window), terms.sum(axis=-1), 0.0)


CHI_SQUARE = Distance("chi_square", frozenset({"numeric", "categorical", "counts"}), chi_square)

"""The maximum mean discrepancy, of numbers and of points in space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raytrain.monitoring.drift.distances.distance import Distance, Floats, both_filled, shares

_MOST_FOR_MEDIAN = 500


def mmd(reference: Floats, window: Floats, positions: Floats | None) -> Floats:
    """Under a Gaussian kernel as wide as the median distance between two rows of both samples together.

    Gretton et al. 2012, "A kernel two-sample test", JMLR 13; the biased estimate, which no sample makes negative.
    """
    assert positions is not None, "only numbers have places"
    if not len(positions):
        return np.zeros(np.broadcast_shapes(reference.shape, window.shape)[:-1])
    apart = np.abs(positions[:, None] - positions[None, :])
    rows = (reference + window).reshape(-1, len(positions))
    width = _weighted_median(apart, rows[0]) if len(rows) else 0.0
    if width == 0.0:
        width = float(apart.max(initial=0.0)) / 2
    if width == 0.0:
        return np.zeros(np.broadcast_shapes(reference.shape, window.shape)[:-1])
    with np.errstate(over="ignore"):  # what is that far apart has nothing in common
        kernel = np.exp(-((apart / width) ** 2) / 2)
    difference = shares(reference) - shares(window)
    squared = ((difference @ kernel) * difference).sum(axis=-1)
    return np.where(both_filled(reference, window), np.sqrt(np.maximum(squared, 0.0)), 0.0)


def _weighted_median(apart: Floats, weights: Floats) -> float:
    """Of the distances between rows: a pair of bins counts for as many as there are pairs of rows in them."""
    pairs = np.outer(weights, weights).ravel()
    order = np.argsort(apart, axis=None, kind="stable")
    passed = np.cumsum(pairs[order])
    return float(apart.ravel()[order[np.searchsorted(passed, passed[-1] / 2)]])


def kernel_features(points: NDArray[np.floating], num_features: int, seed: int) -> NDArray[np.float32]:
    """Points of any space as vectors whose means are as far apart as the samples are by the same kernel, about.

    Rahimi & Recht 2007, "Random features for large-scale kernel machines". The same points, in whatever order, give the
    same kernel: its width is the median distance, of some hundred points chosen by their values.
    """
    clean = np.nan_to_num(np.asarray(points, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    generator = np.random.default_rng(seed)
    ranked = clean[np.lexsort(clean.T[::-1])] if clean.size else clean
    some = ranked[:: max(1, len(ranked) // _MOST_FOR_MEDIAN)]
    apart = np.sqrt(np.maximum(((some[:, None, :] - some[None, :, :]) ** 2).sum(axis=-1), 0.0))
    width = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    directions = generator.standard_normal((clean.shape[1], num_features)) / width
    phases = generator.uniform(0.0, 2 * np.pi, num_features)
    found = np.sqrt(2.0 / num_features) * np.cos(clean @ directions + phases)
    return np.asarray(found, np.float32)


MMD = Distance("mmd", frozenset({"numeric", "vector"}), mmd)

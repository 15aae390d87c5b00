"""Many tests at once. Both give p-values to be held against the level as if there were one test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of any false alarm stays below the level. Holm 1979, "A simple sequentially rejective
    multiple test procedure"."""
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    factors = np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return [float(one) for one in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that of what is found the expected share of false alarms stays below the level. Benjamini & Hochberg
    1995, "Controlling the false discovery rate"."""
    if not len(p_values):
        return []
    return [float(one) for one in stats.false_discovery_control(p_values, method="bh")]

"""Intervals by drawing items, or whole groups of them, again and again."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from scipy import stats

from raytrain.evaluation.statistics.pairs import Interval, Pairs

BootstrapMethod = Literal["percentile", "BCa"]


def bootstrap_interval(
    pairs: Pairs,
    level: float = 0.95,
    *,
    method: BootstrapMethod = "BCa",
    num_draws: int = 9999,
    seed: int = 0,
) -> Interval | None:
    """Of the mean difference. The same seed gives the same interval. None where draws do not vary, which says nothing.

    Percentile: Efron 1979, "Bootstrap methods". BCa (bias-corrected and accelerated): Efron 1987, "Better bootstrap
    confidence intervals". Both of scores of two models on the same items are drawn together; where items come in groups
    whole groups are drawn: Davison & Hinkley 1997, "Bootstrap methods and their application", section 3.8.
    """
    sums, sizes = pairs.unit_sums()
    if len(sums) < 2 or np.ptp(sums / sizes) == 0.0:
        return None

    def mean(sums: Any, sizes: Any, axis: int = -1) -> Any:
        return sums.sum(axis=axis) / sizes.sum(axis=axis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of degenerate draws; such an interval is not given out
        found = stats.bootstrap(
            (sums, sizes),
            mean,
            paired=True,
            vectorized=True,
            confidence_level=level,
            method=method,
            n_resamples=num_draws,
            batch=max(1, 4_000_000 // len(sums)),  # 32 MB of draws at a time
            rng=np.random.default_rng(seed),
        ).confidence_interval
    if not np.isfinite([found.low, found.high]).all():
        return None
    clustered = "" if pairs.groups is None else ", clustered"
    return Interval(float(found.low), float(found.high), level, f"bootstrap {method}{clustered}")

"""Whether a window has drifted: at a stated rate of false alarms over all of its features together.

The alarm is a step-down's first step: Westfall & Young 1993, "Resampling-based multiple testing". Each feature's
distance is put on one scale (the tail of a gamma distribution with the mean and variance that it has by chance, which
makes features of few and of many bins alike), and the furthest feature as seen is held against the furthest feature of
every permutation. Its rate of false alarms is the level itself, however features hang together, where an adjustment for
each of them alone would stay far below it, or need them to be independent.
Which features moved is told by Benjamini & Hochberg's procedure over the features' own permutation p-values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from raytrain.evaluation.statistics.corrections import benjamini_hochberg
from raytrain.monitoring.drift.columns import Column, Pooled, pool_columns
from raytrain.monitoring.drift.distances.distance import Distance, Floats, Kind
from raytrain.monitoring.drift.distances.known import DISTANCES
from raytrain.monitoring.drift.permutations import distances_by_chance

USUAL: dict[Kind, Distance] = {
    "numeric": DISTANCES["ks"],
    "categorical": DISTANCES["js"],
    "counts": DISTANCES["js"],
    "vector": DISTANCES["mmd"],
}


@dataclass(frozen=True)
class FeatureDrift:
    """One feature of a window beside the reference."""

    name: str
    kind: Kind
    distance: str
    value: float
    threshold: float
    """From which on the window is an alarm, whatever its other features do."""
    p_value: float
    """Share of permutations that are as far apart in this feature, the seen one among them."""
    adjusted_p_value: float
    """Benjamini and Hochberg's, over all features."""
    has_moved: bool
    """Told of windows that are an alarm alone."""

    @property
    def score(self) -> float:
        """Of the threshold; 0 where there is none, as of what never varies."""
        return self.value / self.threshold if self.threshold > 0 else 0.0


@dataclass(frozen=True)
class Judgement:
    """What the permutations say of a window."""

    is_drift: bool
    p_value: float
    """Of the furthest feature among all of them; at most `level` by chance in that share of windows."""
    level: float
    features: tuple[FeatureDrift, ...]
    """The furthest first."""
    permutations: int
    num_reference: int
    num_window: int
    notes: tuple[str, ...] = ()

    @property
    def moved(self) -> list[FeatureDrift]:
        return [one for one in self.features if one.has_moved]


def judge_window(
    reference: Sequence[Column],
    window: Sequence[Column],
    *,
    level: float = 0.05,
    permutations: int = 999,
    distances: Mapping[Kind, Distance] = USUAL,
    seed: int = 0,
) -> Judgement:
    """Both have the same features in the same order. Never raises for what they hold: what cannot be compared is told
    in `notes` and is no alarm."""
    num_reference = len(reference[0]) if reference else 0
    num_window = len(window[0]) if window else 0
    why = _nothing_to_compare(reference, num_reference, num_window)
    if why:
        return Judgement(False, 1.0, level, (), 0, num_reference, num_window, (why,))
    pooled = [one for then, now in zip(reference, window, strict=True) for one in pool_columns(then, now)]
    # With fewer no p-value of a feature could come below its part of the level.
    permutations = max(permutations, math.ceil(len(pooled) / level))
    by_chance = distances_by_chance(
        pooled,
        distances,
        num_window,
        permutations=permutations,
        seed=seed,
    )
    return _judged(pooled, by_chance, distances, level, (num_reference, num_window))


def _nothing_to_compare(reference: Sequence[Column], num_reference: int, num_window: int) -> str | None:
    if not reference:
        return "there is no feature to compare"
    if not num_window:
        return "the window is empty: nothing is compared"
    return None if num_reference else "the reference is empty: nothing is compared"


def _judged(
    pooled: Sequence[Pooled],
    by_chance: Floats,
    distances: Mapping[Kind, Distance],
    level: float,
    sizes: tuple[int, int],
) -> Judgement:
    shapes, scales = _fit_gamma(by_chance)
    tails = _tails(by_chance, shapes, scales)
    furthest = tails.min(axis=1)
    rank = int((furthest <= furthest[0]).sum())
    p_value = rank / len(furthest)
    allowed = max(1, int(level * len(furthest) + 1e-9))
    limit = float(np.sort(furthest)[allowed - 1])
    with np.errstate(invalid="ignore"):
        thresholds = np.where(scales > 0, scales * special.gammainccinv(shapes, limit), 0.0)
    alone = (by_chance >= by_chance[0] * (1 - 1e-9)).mean(axis=0)
    adjusted = np.ones(len(pooled))
    adjusted[scales > 0] = benjamini_hochberg(alone[scales > 0].tolist())
    is_drift = p_value <= level
    features = [
        FeatureDrift(
            name=one.name,
            kind=one.kind,
            distance=distances[one.kind].name,
            value=float(by_chance[0, i]),
            threshold=float(thresholds[i]),
            p_value=float(alone[i]),
            adjusted_p_value=float(adjusted[i]),
            has_moved=bool(is_drift and (adjusted[i] <= level or tails[0, i] == furthest[0])),
        )
        for i, one in enumerate(pooled)
    ]
    still = [one.name for one, scale in zip(pooled, scales, strict=True) if scale == 0]
    notes = (f"never vary, so that nothing is seen of them: {', '.join(still)}",) if still else ()
    order = np.argsort(tails[0], kind="stable")
    ranked = tuple(features[i] for i in order)
    return Judgement(is_drift, p_value, level, ranked, len(by_chance) - 1, *sizes, notes)


def _fit_gamma(by_chance: Floats) -> tuple[Floats, Floats]:
    """Shape and scale by the moments; nothing where a feature never varies."""
    means, variances = by_chance.mean(axis=0), by_chance.var(axis=0)
    varies = variances > 1e-24 * np.maximum(means, 1e-300) ** 2
    scales = np.where(varies, variances / np.where(varies, means, 1.0), 0.0)
    shapes = np.where(varies, means**2 / np.where(varies, variances, 1.0), 1.0)
    return shapes, scales


def _tails(by_chance: Floats, shapes: Floats, scales: Floats) -> NDArray[np.float64]:
    tails = special.gammaincc(shapes, by_chance / np.where(scales > 0, scales, 1.0))
    return np.where(scales > 0, tails, 1.0)

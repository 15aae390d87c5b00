"""Rules that are numbers: distances above a limit, metrics that fall, streams that change. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError
from raytrain.monitoring.drift.columns import Binned, Column, Summed, pool_columns, upper_edges
from raytrain.monitoring.drift.distances.distance import Floats
from raytrain.monitoring.drift.distances.known import DISTANCES
from raytrain.monitoring.drift.section import FallRule, FixedRule, StreamRule

_BINS = 10
"""As whoever states such limits bins: equal shares of the reference."""


@dataclass(frozen=True)
class Breach:
    """A rule that a window broke, or nearly."""

    rule: Literal["fixed", "falls", "streams"]
    feature: str
    what: str
    value: float
    limit: float
    is_alarm: bool


def check_features(asked: Sequence[str], features: Sequence[Column], key: str, *, numeric: bool) -> None:
    """Raises ConfigError where a rule names a feature that there is not, or that is no number."""
    known = [one.name for one in features if not numeric or one.kind == "numeric"]
    for name in asked:
        if name not in known:
            near = nearest(name, known)
            raise ConfigError(
                f"{key}: there is no {'numeric ' if numeric else ''}feature `{name}`",
                why=f"the reference has {', '.join(known) or 'none'}",
                fix=f"did you mean `{near}`?" if near else "name one of these",
            )


def fixed_breaches(
    reference: Sequence[Column], window: Sequence[Column], rules: Sequence[FixedRule]
) -> list[Breach]:
    """Of each rule by each feature that it is for."""
    check_features([one.feature for one in rules if one.feature != "*"], reference, "fixed", numeric=False)
    found = []
    for rule in rules:
        for then, now in zip(reference, window, strict=True):
            takes = then.kind in DISTANCES[rule.distance].takes and then.kind != "vector"
            if rule.feature not in ("*", then.name) or not takes or not len(then) or not len(now):
                continue
            value = fixed_distance(then, now, rule.distance)
            told = rule.above if rule.warn_above is None else min(rule.warn_above, rule.above)
            if value > told:
                is_alarm = value > rule.above
                limit = rule.above if is_alarm else told
                found.append(Breach("fixed", then.name, rule.distance, value, limit, is_alarm))
    return found


def fixed_distance(then: Column, now: Column, distance: str) -> float:
    """Over ten bins with equal shares of the reference; of names, over each of them."""
    measure = DISTANCES[distance].measure
    if then.kind == "numeric":
        known = then.values[~np.isnan(then.values)]
        if not len(known):
            return 0.0
        # What lies beyond the reference's largest value is in its last bin.
        inner = upper_edges(known, _BINS)[:-1]
        counts = [_counts(inner, one.values) for one in (then, now)]
        both = np.concatenate([known, now.values[~np.isnan(now.values)]])
        places = np.searchsorted(inner, both, side="left")
        sizes = np.bincount(places, minlength=len(inner) + 1)
        sums = np.bincount(places, weights=both, minlength=len(inner) + 1)
        filled = sizes > 0
        positions = sums[filled] / sizes[filled]
        return float(measure(counts[0][filled], counts[1][filled], positions))
    pooled = pool_columns(then, now)[0]
    if isinstance(pooled, Summed):
        split = len(then)
        reference, window = pooled.rows[:split].sum(axis=0), pooled.rows[split:].sum(axis=0)
        return float(measure(reference.astype(np.float64), window.astype(np.float64), None))
    return float(measure(*_split(pooled, len(then)), None))


def _counts(inner: Floats, values: Floats) -> Floats:
    known = values[~np.isnan(values)]
    return np.bincount(np.searchsorted(inner, known, side="left"), minlength=len(inner) + 1).astype(
        np.float64
    )


def _split(pooled: Binned, num_reference: int) -> tuple[Floats, Floats]:
    width = pooled.num_bins + 1
    halves = pooled.codes[:num_reference], pooled.codes[num_reference:]
    then, now = (np.bincount(one, minlength=width)[:-1].astype(np.float64) for one in halves)
    return then, now


def falls(reference: Sequence[Column], window: Sequence[Column], rules: Sequence[FallRule]) -> list[Breach]:
    """Of means over what is known on both sides; where a side knows nothing nothing has fallen."""
    check_features([one.feature for one in rules], reference, "falls", numeric=True)
    then, now = means_of(reference), means_of(window)
    found = []
    for rule in rules:
        if rule.feature in then and rule.feature in now:
            before, after = then[rule.feature], now[rule.feature]
            if before - after > rule.by:
                what = f"mean {after:.4g}, was {before:.4g}"
                found.append(Breach("falls", rule.feature, what, before - after, rule.by, True))
    return found


def means_of(columns: Sequence[Column]) -> dict[str, float]:
    """Of numbers that are there; nothing of features without one."""
    numeric = {one.name: one.values[~np.isnan(one.values)] for one in columns if one.kind == "numeric"}
    return {name: float(values.mean()) for name, values in numeric.items() if len(values)}


def changed_streams(
    reference: Sequence[Column],
    earlier: Sequence[Column],
    window: Sequence[Column],
    rules: Sequence[StreamRule],
) -> list[Breach]:
    """The reference is read, then the rows between it and the window, then the window; changes in that are told.

    earlier: has the rules' features at least.
    """
    from raytrain.monitoring.drift.streaming.build import build_detector
    from raytrain.monitoring.drift.streaming.detector import find_changes

    check_features([one.feature for one in rules], reference, "streams", numeric=True)
    parts = [{one.name: one.values for one in side} for side in (reference, earlier, window)]
    found = []
    for rule in rules:
        series = [one[rule.feature] for one in parts]
        num_before = sum(int(np.isfinite(one).sum()) for one in series[:2])
        changes = find_changes(np.concatenate(series).tolist(), build_detector(rule))
        first = next((one for one in changes if one.place >= num_before), None)
        if first is not None:
            row = first.place - num_before + 1
            what = f"{rule.detector} at value {row:,}: mean {first.after:.4g}, was {first.before:.4g}"
            change = abs(first.after - first.before)
            found.append(Breach("streams", rule.feature, what, change, 0.0, True))
    return found

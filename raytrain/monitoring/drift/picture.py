"""What a person is shown of a feature: shares of then and now over a few bins, and words that come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raytrain.monitoring.drift.columns import MISSING, Binned, Column, pool_columns, upper_edges
from raytrain.monitoring.drift.texts import common_words

_MOST_BARS = 12
_MOST_WORDS = 8
_WORDS_KEPT = 2_000


@dataclass(frozen=True)
class Bar:
    """One bin; shares of all rows on each side."""

    label: str
    then: float
    now: float


def bars_of(reference: Column, window: Column) -> list[Bar]:
    """At most a dozen; none of what has no bins that say anything to a person."""
    if reference.kind in ("counts", "vector") or not len(reference) or not len(window):
        return []
    if reference.kind == "numeric":
        return _bars_of_numbers(reference, window)
    pooled = pool_columns(reference, window, _MOST_BARS)[0]
    if not isinstance(pooled, Binned):
        return []
    labels = [*pooled.labels, MISSING]
    then, now = (
        _shares(one, len(labels)) for one in (pooled.codes[: len(reference)], pooled.codes[len(reference) :])
    )
    return [Bar(*one) for one in zip(labels, then, now, strict=False) if one[1] or one[2]]


def _bars_of_numbers(reference: Column, window: Column) -> list[Bar]:
    both = np.concatenate([reference.values, window.values])
    there = both[~np.isnan(both)]
    if not len(there):
        return []
    edges = upper_edges(there, _MOST_BARS)
    sides = []
    for one in (reference.values, window.values):
        codes = np.where(np.isnan(one), len(edges), np.searchsorted(edges, np.nan_to_num(one), side="left"))
        sides.append(_shares(codes, len(edges) + 1))
    single = len(edges) == len(np.unique(there))
    lows = [float(there.min()), *edges[:-1].tolist()]
    labels = [
        f"{high:.4g}" if single or low == high else f"{low:.4g} to {high:.4g}"
        for low, high in zip(lows, edges.tolist(), strict=True)
    ]
    return [Bar(*one) for one in zip([*labels, MISSING], *sides, strict=True) if one[1] or one[2]]


def _shares(codes: np.ndarray, num_bins: int) -> list[float]:
    counts = np.bincount(codes, minlength=num_bins)
    return [float(one) for one in counts / max(1, counts.sum())]


@dataclass(frozen=True)
class WordShare:
    """In what share of the texts a word stands."""

    word: str
    then: float
    now: float


def words_that_moved(
    reference: Mapping[str, int], num_reference: int, texts: Sequence[str | None]
) -> list[WordShare]:
    """Those whose share changed most, by what it comes to in standard deviations; only ever told, never judged by."""
    if not texts or not num_reference:
        return []
    now = common_words(texts, _WORDS_KEPT)
    found = []
    for word in reference.keys() | now.keys():
        before, after = reference.get(word, 0) / num_reference, now.get(word, 0) / len(texts)
        share = (reference.get(word, 0) + now.get(word, 0)) / (num_reference + len(texts))
        spread = (share * (1 - share) * (1 / num_reference + 1 / len(texts))) ** 0.5
        if spread > 0 and abs(after - before) > 3 * spread:
            found.append((abs(after - before) / spread, WordShare(word, before, after)))
    found.sort(key=lambda one: (-one[0], one[1].word))
    return [one for _, one in found[:_MOST_WORDS]]


def words_to_keep(texts: Sequence[str | None]) -> dict[str, int]:
    return common_words(texts, _WORDS_KEPT)

"""A feature's values over the rows of a sample, and what two samples of it have in common: a grid that both lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.evaluation.records import storable
from raytrain.monitoring.drift.distances.distance import Floats, Kind
from raytrain.monitoring.drift.distances.mmd import kernel_features

MOST_BINS = 64
OTHER = "(other)"
MISSING = "(missing)"
_LARGEST = 1e100
"""Numbers beyond it count as it: squares and sums of them stay numbers."""
_KERNEL_FEATURES = 256


@dataclass(frozen=True)
class Column:
    """One feature of one sample.

    values: of numbers a float array, NaN = missing; of names an arrow array of text, null = missing; of counts and
    vectors a matrix with a row for each row.
    """

    name: str
    kind: Kind
    values: Any

    def __len__(self) -> int:
        return len(self.values)


def numbers(name: str, values: Any) -> Column:
    """Infinities count as missing: they have no place among the others."""
    found = np.asarray(values, np.float64)
    found = np.where(np.isfinite(found), np.clip(found, -_LARGEST, _LARGEST), np.nan)
    return Column(name, "numeric", found)


def names(name: str, values: Sequence[str | None]) -> Column:
    import pyarrow as pa

    try:
        return Column(name, "categorical", pa.array(values, pa.string()))
    except UnicodeEncodeError:
        pass  # a lone half of a surrogate pair is text to Python and to nobody else
    return Column(
        name, "categorical", pa.array([None if x is None else storable(x) for x in values], pa.string())
    )


@dataclass(frozen=True)
class Binned:
    """A numeric or categorical feature of both samples, the reference's rows first.

    codes: the bin of each row; `num_bins` stands for missing. positions: None where bins are names.
    """

    name: str
    kind: Kind
    codes: NDArray[np.int64]
    num_bins: int
    positions: Floats | None
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Summed:
    """A feature of which a sample shows the sum of its rows: counts as they are, points as features of a kernel."""

    name: str
    kind: Kind
    rows: NDArray[np.float32]


Pooled = Binned | Summed


def pool_columns(reference: Column, window: Column, most_bins: int = MOST_BINS) -> list[Pooled]:
    """What is compared of a feature; where some of its values are missing, whether they are is a feature of its own.

    Everything here depends on the rows of both samples together and not on which of them a row comes from, without
    which permutations of the rows would not be like them.
    """
    if reference.kind in ("counts", "vector"):
        both = np.concatenate([np.atleast_2d(one.values) for one in (reference, window) if len(one)])
        if reference.kind == "vector":
            both = kernel_features(both, _KERNEL_FEATURES, seed=0)
        return [Summed(reference.name, reference.kind, np.asarray(both, np.float32))]
    binned = _of_numbers if reference.kind == "numeric" else _of_names
    found = binned(reference, window, most_bins)
    missing = found.codes == found.num_bins
    if not missing.any():
        return [found]
    lacks = Binned(
        f"{found.name} is missing", "categorical", missing.astype(np.int64), 2, None, ("there", "missing")
    )
    return [lacks] if missing.all() else [found, lacks]


def _of_numbers(reference: Column, window: Column, most_bins: int) -> Binned:
    both = np.concatenate([reference.values, window.values])
    there = both[~np.isnan(both)]
    edges = upper_edges(there, most_bins)
    codes = np.where(np.isnan(both), len(edges), np.searchsorted(edges, np.nan_to_num(both), side="left"))
    # A value above the last edge cannot be: that is the largest of all.
    inside = codes[~np.isnan(both)]
    sums = np.bincount(inside, weights=there, minlength=len(edges))
    sizes = np.bincount(inside, minlength=len(edges))
    # Bins that hold one value have it as their place exactly, and no mean of it that is rounded.
    is_single = np.diff(edges, prepend=-np.inf) > 0
    positions = np.where(
        is_single & (len(edges) == len(np.unique(there))), edges, sums / np.maximum(sizes, 1)
    )
    return Binned(reference.name, "numeric", codes, len(edges), positions, tuple(f"{one:g}" for one in edges))


def upper_edges(values: Floats, most_bins: int) -> Floats:
    """Of bins with about as many values each; each distinct value has its own where they are few."""
    distinct: Floats = np.unique(values)
    if len(distinct) <= most_bins:
        return distinct
    levels = np.arange(1, most_bins + 1) / most_bins
    found: Floats = np.unique(np.quantile(values, levels, method="inverted_cdf"))
    return found


def _of_names(reference: Column, window: Column, most_bins: int) -> Binned:
    import pyarrow as pa

    both = pa.concat_arrays([reference.values, window.values]).dictionary_encode()
    known = both.dictionary.to_pylist()
    raw = both.indices.fill_null(len(known)).to_numpy(zero_copy_only=False).astype(np.int64)
    sizes = np.bincount(raw, minlength=len(known) + 1)
    order = sorted(range(len(known)), key=lambda place: (-sizes[place], known[place]))
    kept, rest = order[: most_bins - 1], order[most_bins - 1 :]
    labels = [known[place] for place in kept]
    if len(rest) == 1:
        labels.append(known[rest[0]])
    elif rest:
        labels.append(OTHER)
    to_bin = np.full(len(known) + 1, len(kept), np.int64)
    to_bin[kept] = np.arange(len(kept))
    to_bin[len(known)] = len(labels)
    return Binned(reference.name, "categorical", to_bin[raw], len(labels), None, tuple(labels))

"""Duplicates among rows that do not fit in memory.

While rows are read, their fingerprints go to files: 16 bytes of content hash, 8 bytes a band and 128 bytes of
signature per row. Then one band at a time is sorted. In memory stay 4 bytes per row, and up to 24 more while
one band is sorted.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from raytrain.data.fingerprints import NUM_PERMUTATIONS, band_keys, choose_bands, signatures

# The lowest byte of each permutation is kept (b-bit MinHash, Li and König 2010): two rows that differ agree
# in it by chance once in 256.
_CHANCE = 1 / 256
_COMPARED_AT_ONCE = 8192
_MOST_COMPARISONS_PER_ROW = 50


class FingerprintFiles:
    """Collects fingerprints in files below `folder`; use as a context, then hand it to `find_duplicates`."""

    def __init__(self, folder: Path, threshold: float | None) -> None:
        self.folder = folder
        self.threshold = threshold
        self.num_rows = 0
        self.bands, self.width = choose_bands(threshold) if threshold is not None else (0, 0)

    def __enter__(self) -> Self:
        self.folder.mkdir()
        with ExitStack() as stack:
            self._content = stack.enter_context((self.folder / "content").open("wb"))
            self._band_files = [
                stack.enter_context(self.band_path(band).open("wb")) for band in range(self.bands)
            ]
            self._signatures = stack.enter_context(self.signature_path.open("wb"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def content_path(self) -> Path:
        return self.folder / "content"

    @property
    def signature_path(self) -> Path:
        return self.folder / "signatures"

    def band_path(self, band: int) -> Path:
        return self.folder / f"band-{band:03d}"

    def add(self, content_hashes: list[bytes], texts: list[bytes]) -> None:
        """Append the fingerprints of a batch of rows."""
        self._content.write(b"".join(content_hashes))
        if self.threshold is not None:
            signature, comparable = signatures(texts)
            keys = band_keys(signature, self.bands, self.width)
            # Rows without word triples are like nothing: each gets a key of its own.
            lonely = np.flatnonzero(~comparable)
            keys[:, lonely] = (lonely + self.num_rows).astype(np.uint64)
            for file, band in zip(self._band_files, keys, strict=True):
                file.write(band.tobytes())
            self._signatures.write((signature & np.uint32(0xFF)).astype(np.uint8).tobytes())
        self.num_rows += len(content_hashes)


@dataclass(frozen=True)
class Duplicates:
    """`duplicate_of[row]` is the earlier row that stays, or -1 where the row itself stays."""

    duplicate_of: NDArray[np.int32]
    is_exact: NDArray[np.bool_]
    search_was_cut: bool


def find_duplicates(files: FingerprintFiles) -> Duplicates:
    """For every row the earliest row of its group.

    Of two rows that stay and share a band, none is like the other. Likeness is chained: a row may go because
    it is like a row that went itself. The result depends on the rows alone.
    """
    duplicate_of = np.full(files.num_rows, -1, np.int32)
    if files.num_rows < 2:
        return Duplicates(duplicate_of, duplicate_of >= 0, search_was_cut=False)
    _mark_exact(files, duplicate_of)
    is_exact = duplicate_of >= 0
    was_cut = False
    if files.threshold is not None:
        budget = _MOST_COMPARISONS_PER_ROW * files.num_rows
        with files.signature_path.open("rb", buffering=0) as signature_file:
            for band in range(files.bands):
                keys = np.fromfile(files.band_path(band), np.uint64)
                budget = _mark_alike(keys, duplicate_of, signature_file.fileno(), files.threshold, budget)
                if budget <= 0:
                    was_cut = True
                    break
    _follow_to_the_first(duplicate_of)
    return Duplicates(duplicate_of, is_exact, was_cut)


def _mark_exact(files: FingerprintFiles, duplicate_of: NDArray[np.int32]) -> None:
    low = np.fromfile(files.content_path, np.uint64)[::2].copy()
    rows = _rows_that_share(low, np.ones(len(low), np.bool_))
    del low
    if not len(rows):
        return
    pairs = np.fromfile(files.content_path, np.uint64).reshape(-1, 2)[rows]
    order = np.lexsort((rows, pairs[:, 1], pairs[:, 0]))
    rows, pairs = rows[order], pairs[order]
    first = np.concatenate(([True], (pairs[1:] != pairs[:-1]).any(axis=1)))
    leaders = rows[first][np.cumsum(first) - 1]
    duplicate_of[rows[~first]] = leaders[~first]


def _rows_that_share(keys: NDArray[np.uint64], among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows, in order, whose key another row has too."""
    ordered = np.sort(keys)
    shared = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(shared):
        return np.zeros(0, np.int64)
    found = []
    for begin in range(0, len(keys), 2**18):
        part = keys[begin : begin + 2**18]
        place = np.minimum(np.searchsorted(shared, part), len(shared) - 1)
        found.append(np.flatnonzero((shared[place] == part) & among[begin : begin + 2**18]) + begin)
    return np.concatenate(found)


def _mark_alike(
    keys: NDArray[np.uint64],
    duplicate_of: NDArray[np.int32],
    signature_file: int,
    threshold: float,
    budget: int,
) -> int:
    """Compare a bucket's rows with its first, then the rest likewise; returns the budget left."""
    rows = _rows_that_share(keys, duplicate_of < 0)
    rows = rows[np.argsort(keys[rows], kind="stable")]
    buckets = keys[rows]
    while len(rows):
        first = np.concatenate(([True], buckets[1:] != buckets[:-1]))
        leaders = rows[first][np.cumsum(first) - 1][~first]
        rows, buckets = rows[~first], buckets[~first]
        budget -= len(rows)
        if budget <= 0:
            return budget
        alike = likeness(signature_file, leaders, rows) >= threshold
        duplicate_of[rows[alike]] = leaders[alike]
        rows, buckets = rows[~alike], buckets[~alike]
    return budget


def likeness(signature_file: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of pairs of rows, from an open file of signatures.

    Rows are fetched by reads, not through a memory map: pages of a map would count as memory of this process.
    """
    result = np.empty(len(left))
    for begin in range(0, len(left), _COMPARED_AT_ONCE):
        chunk = slice(begin, begin + _COMPARED_AT_ONCE)
        equal = _fetched(signature_file, left[chunk]) == _fetched(signature_file, right[chunk])
        result[chunk] = (equal.mean(axis=1) - _CHANCE) / (1 - _CHANCE)
    return result


def _fetched(signature_file: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    size = NUM_PERMUTATIONS
    packed = b"".join([os.pread(signature_file, size, row * size) for row in rows.tolist()])
    return np.frombuffer(packed, np.uint8).reshape(-1, size)


def _follow_to_the_first(duplicate_of: NDArray[np.int32]) -> None:
    rows = np.flatnonzero(duplicate_of >= 0)
    while True:
        above = duplicate_of[duplicate_of[rows]]
        moving = above >= 0
        if not moving.any():
            return
        duplicate_of[rows[moving]] = above[moving]

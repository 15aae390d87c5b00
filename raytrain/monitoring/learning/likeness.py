"""Which known texts are most like a new one: cosine of TF-IDF weights of words and word pairs.

Manning, Raghavan, Schütze, "Introduction to Information Retrieval", 6.2 to 6.3. Numbers count as one word: requests
that differ in their values alone are alike.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse

_WORD = re.compile(r"\d+|\w+", re.UNICODE)
_COMPARED_AT_ONCE = 1024


def words_of(text: str) -> list[str]:
    """In small letters, each number as `#`."""
    return ["#" if word.isdigit() else word for word in _WORD.findall(text.casefold())]


def terms_of(text: str) -> list[str]:
    """Words and pairs of neighbours."""
    words = words_of(text)
    return [*words, *(f"{left} {right}" for left, right in itertools.pairwise(words))]


@dataclass(frozen=True)
class Neighbours:
    """`places` of known texts by falling `likeness`, 0 to 1."""

    places: list[int]
    likeness: list[float]


@dataclass(frozen=True)
class KnownTexts:
    """Texts that others are compared with; memory grows with their words."""

    texts: Sequence[str]

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for text in self.texts:
            for term in terms_of(text):
                found.setdefault(term, len(found))
        return found

    @cached_property
    def _weights(self) -> Any:
        """Of each term: rare ones tell more. +1 as if one more text had every term."""
        counts = np.zeros(len(self._vocabulary))
        for text in self.texts:
            counts[[self._vocabulary[term] for term in set(terms_of(text))]] += 1
        return np.log((1 + len(self.texts)) / (1 + counts)) + 1

    @cached_property
    def _matrix(self) -> Any:
        return self._vectors(self.texts).T.tocsc()

    def _vectors(self, texts: Sequence[str]) -> Any:
        """(texts, terms) of length 1. Unknown terms lengthen a text too, or one shared word would be likeness."""
        values, columns, ends = [], [], [0]
        unknown_weight = float(np.log(1 + len(self.texts)) + 1)
        for text in texts:
            terms = terms_of(text)
            known = [self._vocabulary[term] for term in terms if term in self._vocabulary]
            where, counts = np.unique(np.asarray(known, np.int64), return_counts=True)
            weights = counts * self._weights[where]
            norm = np.sqrt((weights**2).sum() + (len(terms) - len(known)) * unknown_weight**2)
            values.append(weights / norm if norm else weights)
            columns.append(where)
            ends.append(ends[-1] + len(where))
        shape = (len(texts), max(1, len(self._vocabulary)))
        data = np.concatenate(values) if values else np.zeros(0)
        indices = np.concatenate(columns) if columns else np.zeros(0, np.int64)
        return sparse.csr_matrix((data, indices, np.asarray(ends)), shape=shape)

    def nearest(self, texts: Sequence[str], count: int, least: float) -> list[Neighbours]:
        """Of each text up to `count` known ones that are at least so much alike."""
        found: list[Neighbours] = []
        for begin in range(0, len(texts) if self.texts else 0, _COMPARED_AT_ONCE):
            products = (self._vectors(texts[begin : begin + _COMPARED_AT_ONCE]) @ self._matrix).tocsr()
            for row in range(products.shape[0]):
                part = slice(products.indptr[row], products.indptr[row + 1])
                places, values = products.indices[part], products.data[part]
                order = np.lexsort((places, -values))[:count]
                kept = [one for one in order if values[one] >= least]
                found.append(
                    Neighbours([int(places[one]) for one in kept], [float(values[one]) for one in kept])
                )
        return found or [Neighbours([], []) for _ in texts]

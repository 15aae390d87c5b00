"""Fingerprints of rows: a content hash for equality, and MinHash signatures with band keys for likeness.

Likeness is the Jaccard similarity of the sets of word triples of two rows. MinHash: Broder 1997, "On the
resemblance and containment of documents"; banding: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets",
3.4.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

NUM_PERMUTATIONS = 128
SEED = 1
VERSION = 1
"""Goes up whenever a change here could give another set of duplicates."""

_LEAST_RECALL = 0.99
# Signatures are made in groups of about this size: the arrays stay in the processor's cache.
_GROUP_ROWS = 256
_GROUP_BYTES = 2**18

_U64 = np.uint64
_MULTIPLIER = 0xD6E8FEB86659FD93
_SHINGLE_FACTORS = (_U64(0x9E3779B97F4A7C15), _U64(0xC2B2AE3D27D4EB4F), _U64(0x165667B19E3779F9))


def content_hash(identity: str) -> bytes:
    """16 bytes that are equal for equal rows. Raises UnicodeEncodeError for text with lone surrogates."""
    return hashlib.blake2b(identity.encode(), digest_size=16, person=b"raytrain row").digest()


def choose_bands(threshold: float, num_permutations: int = NUM_PERMUTATIONS) -> tuple[int, int]:
    """(bands, permutations per band): the widest bands that still find 99 % of the pairs at `threshold`."""
    best = (num_permutations, 1)
    for width in range(1, num_permutations + 1):
        bands = num_permutations // width
        if 1 - (1 - threshold**width) ** bands >= _LEAST_RECALL:
            best = (bands, width)
    return best


def sketcher_version() -> int:
    """The version of the sketching algorithm in rensa; another one gives other signatures."""
    from rensa import RMinHash

    return int(RMinHash.ALGORITHM_VERSION)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of MurmurHash3: every bit of the input reaches every bit of the output."""
    values = values ^ (values >> _U64(33))
    values *= _U64(0xFF51AFD7ED558CCD)
    values ^= values >> _U64(33)
    values *= _U64(0xC4CEB9FE1A85EC53)
    values ^= values >> _U64(33)
    return values


@cache
def _byte_tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.uint64]]:
    """Per byte: is it part of a word; does it start a CJK character (a word of its own); its random value.

    Letters count without case. Operators belong to words, other punctuation parts them.
    """
    word = np.zeros(256, np.bool_)
    word[[code for code in range(128) if chr(code).isalnum() or chr(code) in "_+-*/=<>%^&|~"]] = True
    word[128:] = True
    cjk = np.zeros(256, np.bool_)
    cjk[0xE3:0xEE] = True
    values = _mixed(np.arange(1, 257, dtype=_U64) * _U64(0x9E3779B97F4A7C15))
    for code in range(ord("A"), ord("Z") + 1):
        values[code] = values[code + 32]
    return word, cjk, values


class _Powers:
    """Powers of an odd number and of its inverse modulo 2**64, as far as they were needed."""

    def __init__(self) -> None:
        self.up = np.ones(1, _U64)
        self.down = np.ones(1, _U64)

    def reach(self, length: int) -> None:
        if length <= len(self.up):
            return
        size = 1 << (length - 1).bit_length()
        factors = np.full(size, _MULTIPLIER, _U64)
        inverses = np.full(size, pow(_MULTIPLIER, -1, 2**64), _U64)
        factors[0] = inverses[0] = 1
        self.up = np.multiply.accumulate(factors)
        self.down = np.multiply.accumulate(inverses)


_POWERS = _Powers()


def shingle_hashes(texts: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes of the word triples of all texts, and the offsets where each text's begin (one more than texts).

    A word's hash is the difference of two prefix sums of a polynomial over its bytes, so no loop runs over
    words.
    """
    word_table, cjk_table, value_table = _byte_tables()
    data = np.frombuffer(b"\n".join(texts) + b"\n", np.uint8)
    _POWERS.reach(len(data))
    in_word = word_table[data]
    before = np.concatenate(([False], in_word[:-1]))
    begins = in_word & (~before | cjk_table[data])
    begins_next = np.concatenate((begins[1:], [False]))
    in_word_next = np.concatenate((in_word[1:], [False]))
    starts = np.flatnonzero(begins)
    ends = np.flatnonzero(in_word & (~in_word_next | begins_next)) + 1
    prefix = np.zeros(len(data) + 1, _U64)
    np.cumsum(value_table[data] * _POWERS.up[: len(data)], out=prefix[1:])
    words = _mixed((prefix[ends] - prefix[starts]) * _POWERS.down[starts])

    text_ends = np.cumsum(np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts)))
    word_ends = np.searchsorted(starts, text_ends)
    num_words = np.diff(word_ends, prepend=0)
    counts = np.maximum(num_words - 2, 0)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(_U64)
    if len(words) < 3:
        return np.zeros(0, _U64), offsets
    first, second, third = _SHINGLE_FACTORS
    triples = _mixed(words[:-2] * first + words[1:-1] * second + words[2:] * third)
    text_of_word = np.repeat(np.arange(len(texts)), num_words)
    return triples[text_of_word[:-2] == text_of_word[2:]], offsets


def signatures(texts: list[bytes]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """MinHash signatures [rows, NUM_PERMUTATIONS], and which rows have word triples at all."""
    parts = []
    comparable = []
    for group in _groups(texts):
        hashes, offsets = shingle_hashes(group)
        parts.append(_sketch(hashes, offsets))
        comparable.append(np.diff(offsets.astype(np.int64)) > 0)
    return np.concatenate(parts), np.concatenate(comparable)


def _groups(texts: list[bytes]) -> list[list[bytes]]:
    groups: list[list[bytes]] = [[]]
    size = 0
    for text in texts:
        if groups[-1] and (size + len(text) > _GROUP_BYTES or len(groups[-1]) >= _GROUP_ROWS):
            groups.append([])
            size = 0
        groups[-1].append(text)
        size += len(text)
    return groups


def _sketch(hashes: NDArray[np.uint64], offsets: NDArray[np.uint64]) -> NDArray[np.uint32]:
    from array import array

    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, NUM_PERMUTATIONS, SEED)
    packed = b"".join([array("I", row).tobytes() for row in matrix.to_rows()])
    return np.frombuffer(packed, np.uint32).reshape(-1, NUM_PERMUTATIONS)


def band_keys(signature: NDArray[np.uint32], bands: int, width: int) -> NDArray[np.uint64]:
    """Keys [bands, rows]; two rows with equal keys in one band agree in all its permutations."""
    lanes = signature[:, : bands * width].reshape(-1, bands, width)
    keys = np.full((len(signature), bands), _MULTIPLIER, _U64)
    for lane in range(width):
        keys = _mixed(keys + lanes[:, :, lane].astype(_U64) * _SHINGLE_FACTORS[0])
    return np.ascontiguousarray(keys.T)

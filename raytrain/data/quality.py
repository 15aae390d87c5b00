"""A quality score per row, 0 to 1: the product of four signals, each 1 for ordinary text.

The score is for looking and for choosing, never a filter by itself: it stands in the `quality` column and, as
a mean, in the data card. The signals follow the filters of Gopher (Rae et al. 2021), as ratios instead of
limits.
"""

from __future__ import annotations

_SYMBOLS = bytes(code for code in range(0x21, 0x7F) if not chr(code).isalnum())
_PLAIN_LENGTH = 20
_PLAIN_LETTER_SHARE = 0.7
_PLAIN_WORD_VARIETY = 0.5
_WORDS_LOOKED_AT = 200


def quality_score(text: str) -> float:
    """Product of the four signals, to four places."""
    score = length_signal(text) * letter_signal(text) * word_signal(text)
    return round(score * line_signal(text), 4) if "\n" in text else round(score, 4)


def length_signal(text: str) -> float:
    """Grows with length and is 1 from 20 characters on."""
    return min(1.0, len(text) / _PLAIN_LENGTH)


def letter_signal(text: str) -> float:
    """Share of bytes that are no ASCII punctuation; 1 from 70 % on, which JSON and code reach."""
    encoded = text.encode("utf-8", "replace")
    if not encoded:
        return 0.0
    share = len(encoded.translate(None, _SYMBOLS)) / len(encoded)
    return min(1.0, share / _PLAIN_LETTER_SHARE)


def word_signal(text: str) -> float:
    """Share of different words among the first 200; 1 from one half on."""
    words = text.split(None, _WORDS_LOOKED_AT)[:_WORDS_LOOKED_AT]
    if not words:
        return 0.0
    return min(1.0, len(set(words)) / len(words) / _PLAIN_WORD_VARIETY)


def line_signal(text: str) -> float:
    """Share of different lines among those that are not blank."""
    lines = [line for line in text.split("\n") if line]
    return len(set(lines)) / len(lines) if lines else 0.0

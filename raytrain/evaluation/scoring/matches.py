"""The same text, the same words, a pattern."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence

import regex

from raytrain.evaluation.scoring.registry import Score, register_scorer

_ARTICLES = frozenset(["a", "an", "the"])
_LONGEST_SEARCH_S = 2.0


def normalised_words(text: str) -> list[str]:
    """Words in lower case, without punctuation and English articles: what SQuAD compares (Rajpurkar et al. 2016).

    For any script: compatibility forms are made one (NFKC), and punctuation is what Unicode calls so. -5 is therefore
    5: for numbers there is `number`. A text of articles alone, such as the choice A, keeps them, and one of punctuation
    alone is a word by itself.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(map(_kept, folded)).split()
    return [word for word in words if word not in _ARTICLES] or words or folded.split()


def _kept(one: str) -> str:
    kind = unicodedata.category(one)[0]
    if kind == "P" or one in string.punctuation:
        return ""
    return " " if kind in "ZC" else one


@register_scorer("exact_match")
def exact_match(output: str, references: Sequence[str]) -> Score:
    """1 where the output is a reference, white space around it aside."""
    return Score(float(output.strip() in [one.strip() for one in references]))


@register_scorer("normalised_match")
def normalised_match(output: str, references: Sequence[str]) -> Score:
    """1 where the `normalised_words` are the same."""
    found = normalised_words(output)
    return Score(
        float(found in [normalised_words(one) for one in references]), f"read as {' '.join(found)!r}"
    )


@register_scorer("pattern")
def pattern(output: str, references: Sequence[str], *, pattern: str = r"(?s)(.*)", group: int = 1) -> Score:
    """1 where what the pattern's group finds first is a reference. Raises TimeoutError after two seconds of search."""
    compiled = regex.compile(pattern)
    if not 0 <= group <= compiled.groups:
        raise ValueError(f"the pattern has {compiled.groups} groups, and group {group} is wanted")
    found = compiled.search(output, timeout=_LONGEST_SEARCH_S)
    if found is None:
        return Score(0.0, "the pattern is not found")
    text = (found.group(group) or "").strip()
    return Score(float(text in [one.strip() for one in references]), f"found {text!r}")

"""How much of a reference is in an output: graded scores, the best over the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import regex

from raytrain.evaluation.scoring.matches import normalised_words
from raytrain.evaluation.scoring.registry import Score, register_scorer


@register_scorer("f1")
def f1(output: str, references: Sequence[str]) -> Score:
    """Harmonic mean of precision and recall over normalised words, as SQuAD has it (Rajpurkar et al. 2016)."""
    found = normalised_words(output)
    return Score(max((_f1(found, normalised_words(one)) for one in references), default=0.0))


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2.0 * common / (len(found) + len(wanted))


@register_scorer("rouge_l")
def rouge_l(output: str, references: Sequence[str]) -> Score:
    """F-measure of the longest common subsequence of words. Lin 2004, "ROUGE: a package for automatic evaluation of
    summaries", section 3; words are lower-case letters and digits of any script, unstemmed."""
    found = _words(output)
    return Score(max((_rouge_l(found, _words(one)) for one in references), default=0.0))


def _words(text: str) -> list[str]:
    words: list[str] = regex.findall(r"[\p{L}\p{M}\p{N}]+", text.lower())
    return words


def _rouge_l(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return 0.0
    return 2.0 * _longest_common(found, wanted) / (len(found) + len(wanted))


def _longest_common(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence. Wagner & Fischer 1974; one row of the table is kept."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for i, other in enumerate(right, start=1):
            above = row[i]
            row[i] = diagonal + 1 if word == other else max(above, row[i - 1])
            diagonal = above
    return row[-1]


@register_scorer("chrf")
def chrf(output: str, references: Sequence[str], *, word_order: int = 0) -> Score:
    """chrF (Popović 2015), chrF++ with `word_order=2` (Popović 2017), by sacrebleu, from 0 to 1."""
    from sacrebleu.metrics.chrf import CHRF

    if not references:
        return Score(0.0)
    metric = CHRF(word_order=word_order)
    return Score(metric.sentence_score(output, list(references)).score / 100.0)

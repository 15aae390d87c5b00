"""Whether the candidate is better, or only longer: score by length of what was written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raytrain.evaluation.decision.suite_comparison import SuiteComparison

_MOST_BINS = 5


@dataclass(frozen=True)
class LengthBin:
    """Answers of one model within a range of lengths."""

    low: int
    high: int
    """Tokens of the shortest and longest answer."""
    num_items: int
    mean_tokens: float
    score: float


@dataclass(frozen=True)
class Lengths:
    """Over all suites whose answers are written."""

    baseline: tuple[LengthBin, ...]
    candidate: tuple[LengthBin, ...]
    baseline_mean: float
    candidate_mean: float


def score_by_length(suites: Iterable[SuiteComparison]) -> Lengths | None:
    """Answers of each model in up to five parts of the same number of items; None where nothing was written."""
    written = [one for one in suites if one.kind == "generation"]
    sides = []
    for side in ("baseline", "candidate"):
        tokens = [record.num_new_tokens for one in written for record in getattr(one, side)]
        scores = [score for one in written for score in getattr(one.pairs, side).tolist()]
        if not any(tokens):
            return None
        sides.append((np.array(tokens), np.array(scores)))
    (left, left_scores), (right, right_scores) = sides
    return Lengths(
        _bins(left, left_scores), _bins(right, right_scores), float(left.mean()), float(right.mean())
    )


def _bins(tokens: np.ndarray, scores: np.ndarray) -> tuple[LengthBin, ...]:
    """Answers of one length stay in one part."""
    edges = np.unique(np.quantile(tokens, np.linspace(0, 1, _MOST_BINS + 1)[1:-1]))
    part = np.searchsorted(edges, tokens, side="left")
    return tuple(
        LengthBin(
            int(tokens[inside].min()),
            int(tokens[inside].max()),
            int(inside.sum()),
            float(tokens[inside].mean()),
            float(scores[inside].mean()),
        )
        for i in range(len(edges) + 1)
        if (inside := part == i).any()
    )

"""How sure a model was of an answer, from the likeliest tokens in the place of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NUM_LIKELIEST = 5


@dataclass(frozen=True)
class Confidence:
    """Means over an answer's tokens; None where too few alternatives are known."""

    top_1: float | None
    """Probability of the likeliest token."""
    top_5: float | None
    """Of the five likeliest together."""
    entropy: float | None
    """In nats, of the five likeliest and of all others as one: whoever asked for more gets the same."""


def confidence_of(tokens: Sequence[Sequence[float]]) -> Confidence:
    """tokens: the logprobs of each token's alternatives, in any order. A place without one tells nothing."""
    known = [
        sorted((min(1.0, math.exp(one)) for one in place if one <= 1e-6), reverse=True) for place in tokens
    ]
    known = [place for place in known if place]
    of_five = [place[:NUM_LIKELIEST] for place in known if len(place) >= NUM_LIKELIEST]
    return Confidence(
        _mean([place[0] for place in known]),
        _mean([min(1.0, sum(place)) for place in of_five]),
        _mean([_entropy([*place, max(0.0, 1.0 - sum(place))]) for place in of_five]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _entropy(shares: Sequence[float]) -> float:
    return -sum(one * math.log(one) for one in shares if one > 0.0)

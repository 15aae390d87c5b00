"""A candidate against production, by what both answered online: the statistics and the words of evaluations.

Verdicts rest on a fixed horizon, whose number stood in the serving config before any answer was there: of a shadow the
first `pairs` pairs of the trial, of a canary what came until each side had so many callers (`sides.py`). Before that
there are means and no verdicts, and nothing that comes later changes them, so that looking often makes no false alarm
likelier. Which are the first is known once no ingress can still write one of before: see `settling.py`. Whoever wants
more begins another trial, with rows of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raytrain.evaluation.decision.contract import OverallSection
from raytrain.evaluation.statistics.pairs import Pairs, pair
from raytrain.serving.trials.measures import ANSWERED, MEASURES, Measure, Measured, Share, judged, share
from raytrain.serving.trials.rows import Kept, Pair, Row
from raytrain.serving.trials.settling import side_waits_until, waits_until
from raytrain.serving.trials.sides import ARMS, sides_of


@dataclass(frozen=True)
class OnlineComparison:
    """Of one trial."""

    kept: Kept
    num_pairs: int
    """That are compared, and never more than the horizon; of a canary, callers of the side that has fewer."""
    measured: tuple[Measured, ...]
    shares: dict[str, tuple[Share, ...]]
    """By `pairs`, or the side of a canary."""
    waits_until: float | None = None
    """There are enough pairs, and until then (seconds since 1970) one may come that belongs among them."""

    @property
    def size(self) -> str:
        """In words: 20 pairs."""
        what = "pairs" if self.kept.mode == "shadow" else "callers of each side"
        return f"{self.num_pairs:,} {what}"

    @property
    def is_complete(self) -> bool:
        return self.num_pairs >= self.kept.horizon and self.waits_until is None

    @property
    def is_worse(self) -> bool:
        """Whether the candidate surely is, in anything."""
        return any(one.verdict is not None and one.verdict.word == "worse" for one in self.measured)


def compare_online(
    kept: Kept, feedback: Sequence[Row], asked: OverallSection, now: float
) -> OnlineComparison:
    """feedback: rows of POST /v1/feedback, which a canary's callers give; asked: level, margin and correction, as a
    contract has them; now: when `kept` was read or before, in seconds since 1970."""
    if kept.mode == "canary":
        return _of_canary(kept, feedback, asked, now)
    pairs = kept.pairs()[: kept.horizon]
    scored = [(one, found) for one in (ANSWERED, *MEASURES) if (found := _scores(one, pairs)) is not None]
    is_enough = len(pairs) >= kept.horizon
    waits = waits_until(pairs[-1], kept.rows, now) if is_enough else None
    is_complete = is_enough and waits is None
    measured = judged(scored, asked, math.log1p(kept.slower_by), is_complete=is_complete)
    greedy = [one.candidate for one in pairs if one.candidate is not None and one.candidate["is_greedy"]]
    agreed = share("same words, of those without chance", greedy, "agrees")
    return OnlineComparison(kept, len(pairs), measured, {"pairs": () if agreed is None else (agreed,)}, waits)


def _of_canary(kept: Kept, feedback: Sequence[Row], asked: OverallSection, now: float) -> OnlineComparison:
    sides = sides_of(kept, feedback)
    waits = None if sides.until is None else side_waits_until(sides.until, kept.rows, now)
    is_complete = sides.until is not None and waits is None
    measured = judged(sides.scored(), asked, math.log1p(kept.slower_by), is_complete=is_complete)
    shares = {arm: sides.shares(arm) for arm in ARMS}
    return OnlineComparison(kept, sides.num_callers, measured, shares, waits)


def _scores(measure: Measure, pairs: Sequence[Pair]) -> Pairs | None:
    """In groups by caller, where one has several. None where no pair has both scores."""
    if measure is ANSWERED:
        both = [(1.0, float(one.candidate is not None), one.production["caller"]) for one in pairs]
    else:
        both = [
            (left, right, one.production["caller"])
            for one in pairs
            if one.candidate is not None
            and (left := measure.score(one.production)) is not None
            and (right := measure.score(one.candidate)) is not None
        ]
    if not both:
        return None
    callers = [caller for *_, caller in both]
    groups = callers if len(set(callers)) < len(callers) else None
    return pair([left for left, *_ in both], [right for _, right, _ in both], groups)

"""A candidate against production, by what both answered online: the paired statistics and the words of evaluations.

A shadow's verdicts rest on a fixed horizon: on the first `pairs` pairs of the trial, whose number stood in the serving
config before any was there. Before that there are means and no verdicts, and nothing that comes later changes them, so
that looking often makes no false alarm likelier. Which pairs are the first is known once no ingress can still write one
of before: see `settling.py`. Whoever wants more begins another trial, with pairs of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raytrain.evaluation.decision.contract import OverallSection
from raytrain.evaluation.decision.verdicts import corrected, judge_suite
from raytrain.evaluation.statistics.equivalence import beyond
from raytrain.evaluation.statistics.gains import Verdict, gain_interval, gain_test, judge_beyond
from raytrain.evaluation.statistics.pairs import Interval, Pairs, pair
from raytrain.evaluation.statistics.proportions import wilson_interval
from raytrain.serving.trials.rows import Kept, Pair, Row, first_of_callers
from raytrain.serving.trials.settling import waits_until

Score = Callable[[Row], float | None]
"""More is better; None = this answer has none."""


@dataclass(frozen=True)
class Measure:
    """One thing that is compared of two answers."""

    name: str
    rule: str
    """What is compared, in words."""
    score: Score
    is_ratio: bool = False
    """Scores are logarithms, whose difference is about a share of what is measured. It is a time, if it is judged: both
    sides took theirs beside other requests, so that a difference counts from the trial's `slower_by` on."""
    is_judged: bool = True
    """Whether more is better; what is not is told with its interval, and without a word for it."""


@dataclass(frozen=True)
class Measured:
    """What came of one measure."""

    measure: Measure
    num_pairs: int
    production: float
    """Mean score."""
    candidate: float
    interval: Interval | None
    """Of the mean difference; None before the horizon."""
    verdict: Verdict | None
    """None before the horizon, and where more is neither better nor worse."""


@dataclass(frozen=True)
class Share:
    """Of answers that are so, of one side by itself."""

    name: str
    num: int
    num_of: int

    @property
    def interval(self) -> Interval:
        return wilson_interval(self.num, self.num_of)


@dataclass(frozen=True)
class OnlineComparison:
    """Of one trial."""

    kept: Kept
    num_pairs: int
    """That are compared, and never more than the horizon."""
    measured: tuple[Measured, ...]
    """Of a shadow."""
    shares: dict[str, tuple[Share, ...]]
    """By `pairs`, or the side of a canary."""
    waits_until: float | None = None
    """There are enough pairs, and until then (seconds since 1970) one may come that belongs among them."""

    @property
    def is_complete(self) -> bool:
        return self.num_pairs >= self.kept.horizon and self.waits_until is None

    @property
    def is_worse(self) -> bool:
        """Whether the candidate surely is, in anything."""
        return any(one.verdict is not None and one.verdict.word == "worse" for one in self.measured)


def _flag(key: str, wanted: bool) -> Score:
    return lambda row: None if row[key] is None else float(row[key] is wanted)


def _quickness(key: str, per: str | None = None) -> Score:
    """In logarithms: what is compared is a ratio."""

    def score(row: Row) -> float | None:
        seconds, parts = row[key], 1 if per is None else row[per]
        return -math.log(seconds / parts) if seconds and parts else None

    return score


MEASURES = (
    Measure("format", "JSON that was asked for is JSON of its schema", _flag("is_valid", True)),
    Measure("no refusal", "the answer is no refusal", _flag("is_refusal", False)),
    Measure("whole", "the answer came to its end before its limit", _flag("is_whole", True)),
    Measure("first token", "time until the first token", _quickness("first_token_s"), is_ratio=True),
    # A right answer may be a longer one: how long they are is told, and not judged.
    Measure(
        "time per token",
        "time until the whole answer, per token",
        _quickness("seconds", "tokens"),
        is_ratio=True,
    ),
    Measure(
        "length",
        "tokens of the answer",
        lambda row: math.log(row["tokens"]) if row["tokens"] else None,
        is_ratio=True,
        is_judged=False,
    ),
)
_ANSWERED = Measure("answered", "the candidate has an answer", lambda _: 1.0)


def compare_online(
    kept: Kept, feedback: Sequence[Row], asked: OverallSection, now: float
) -> OnlineComparison:
    """feedback: rows of POST /v1/feedback; asked: level, margin and correction, as a contract has them; now: when
    `kept` was read or before, in seconds since 1970."""
    if kept.mode == "canary":
        shares = {arm: _shares_of(kept, feedback, arm) for arm in ("production", "candidate")}
        return OnlineComparison(kept, 0, (), shares)
    pairs = kept.pairs()[: kept.horizon]
    scored = [(one, found) for one in (_ANSWERED, *MEASURES) if (found := _scores(one, pairs)) is not None]
    is_enough = len(pairs) >= kept.horizon
    waits = waits_until(pairs[-1], kept.rows, now) if is_enough else None
    is_complete = is_enough and waits is None
    measured = _judged(scored, asked, math.log1p(kept.slower_by), is_complete=is_complete)
    greedy = [one.candidate for one in pairs if one.candidate is not None and one.candidate["is_greedy"]]
    agreed = _share("same words, of those without chance", greedy, "agrees")
    return OnlineComparison(kept, len(pairs), measured, {"pairs": () if agreed is None else (agreed,)}, waits)


def _judged(
    scored: Sequence[tuple[Measure, Pairs]], asked: OverallSection, slower: float, *, is_complete: bool
) -> tuple[Measured, ...]:
    """Corrected for as many measures as are judged. slower: logarithm of the ratio of times that counts."""
    judged = [(one, found) for one, found in scored if one.is_judged]
    tests = [beyond(found, slower) if one.is_ratio else gain_test(found) for one, found in judged]
    held = corrected([one.p_value for one in tests], asked.correction)
    p_values = {one.name: p_value for (one, _), p_value in zip(judged, held, strict=True)}
    told = []
    for one, found in scored:
        means = float(found.baseline.mean()), float(found.candidate.mean())
        interval = gain_interval(found, 1.0 - asked.level) if is_complete else None
        p_value = p_values.get(one.name) if is_complete else None
        verdict = None
        if p_value is not None and one.is_ratio:
            verdict = judge_beyond(found, margin=slower, level=asked.level, p_value=p_value)
        elif p_value is not None:
            verdict = judge_suite(found, asked, p_value)
        told.append(Measured(one, len(found), *means, interval, verdict))
    return tuple(told)


def _scores(measure: Measure, pairs: Sequence[Pair]) -> Pairs | None:
    """In groups by caller, where one has several. None where no pair has both scores."""
    if measure is _ANSWERED:
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


def _shares_of(kept: Kept, feedback: Sequence[Row], arm: str) -> tuple[Share, ...]:
    """Of a canary's sides, whose requests are not the same: each by itself, each caller once."""
    rows = first_of_callers(kept.arm(arm))
    rated = first_of_callers(_rated(kept.arm(arm), feedback))
    found = [
        _share("format", rows, "is_valid"),
        _share("refusals", rows, "is_refusal"),
        _share("whole", rows, "is_whole"),
        _share("thumbs up", rated, "is_up"),
    ]
    return tuple(one for one in found if one is not None)


def _rated(rows: Sequence[Row], feedback: Sequence[Row]) -> list[Row]:
    by_request = {one["request_id"]: one for one in rows}
    return [
        {"caller": found["caller"], "is_up": one["rating"] == "up"}
        for one in feedback
        if one["rating"] is not None
        and (found := by_request.get(one["request_id"])) is not None
        and one["digest"] == found["digest"]
    ]


def _share(name: str, rows: Sequence[Row], key: str) -> Share | None:
    told = [one[key] for one in rows if one[key] is not None]
    return Share(name, sum(told), len(told)) if told else None

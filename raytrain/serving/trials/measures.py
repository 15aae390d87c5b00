"""What is compared of two answers, and the words for it: the statistics of evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raytrain.evaluation.decision.contract import OverallSection
from raytrain.evaluation.decision.verdicts import corrected, judge_suite
from raytrain.evaluation.statistics.equivalence import beyond
from raytrain.evaluation.statistics.gains import Verdict, gain_interval, gain_test, judge_beyond
from raytrain.evaluation.statistics.pairs import Interval, Pairs, Test
from raytrain.evaluation.statistics.proportions import wilson_interval
from raytrain.evaluation.statistics.samples import (
    Samples,
    judge_samples,
    samples_beyond,
    samples_interval,
    samples_test,
)
from raytrain.serving.trials.rows import Row

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
    """Of a canary, callers of the side that has fewer."""
    production: float
    """Mean score."""
    candidate: float
    interval: Interval | None
    """Of the difference of the means; None before the horizon."""
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
ANSWERED = Measure("answered", "the candidate has an answer", lambda row: float(row["error"] is None))
RATED = Measure("thumbs up", "a thumb up of those that were given", lambda row: float(row["is_up"]))


def judged(
    scored: Sequence[tuple[Measure, Pairs | Samples]],
    asked: OverallSection,
    slower: float,
    *,
    is_complete: bool,
) -> tuple[Measured, ...]:
    """Corrected for as many measures as are judged. slower: logarithm of the ratio of times that counts."""
    tests = [_test(one, found, slower) for one, found in scored if one.is_judged]
    names = [one.name for one, _ in scored if one.is_judged]
    p_values = dict(zip(names, corrected([one.p_value for one in tests], asked.correction), strict=True))
    told = []
    for one, found in scored:
        means = float(found.baseline.mean()), float(found.candidate.mean())
        interval = _interval(found, 1.0 - asked.level) if is_complete else None
        p_value = p_values.get(one.name) if is_complete else None
        verdict = None if p_value is None else _verdict(one, found, asked, slower, p_value)
        told.append(Measured(one, len(found), *means, interval, verdict))
    return tuple(told)


def _test(measure: Measure, found: Pairs | Samples, slower: float) -> Test:
    if isinstance(found, Samples):
        return samples_beyond(found, slower) if measure.is_ratio else samples_test(found)
    return beyond(found, slower) if measure.is_ratio else gain_test(found)


def _interval(found: Pairs | Samples, level: float) -> Interval:
    return samples_interval(found, level) if isinstance(found, Samples) else gain_interval(found, level)


def _verdict(
    measure: Measure, found: Pairs | Samples, asked: OverallSection, slower: float, p_value: float
) -> Verdict:
    margin = slower if measure.is_ratio else asked.margin
    if isinstance(found, Samples):
        test = _test(measure, found, slower)
        return judge_samples(found, test, margin=margin, level=asked.level, p_value=p_value)
    if measure.is_ratio:
        return judge_beyond(found, margin=margin, level=asked.level, p_value=p_value)
    return judge_suite(found, asked, p_value)


def share(name: str, rows: Sequence[Row], key: str) -> Share | None:
    """None where no row says whether it is so."""
    told = [one[key] for one in rows if one[key] is not None]
    return Share(name, sum(told), len(told)) if told else None

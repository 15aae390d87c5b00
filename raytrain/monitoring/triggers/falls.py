"""Whether what was promoted last answers worse, online, than what answered before. Pure.

Everything is looked at after every answer, so that no test with a fixed number of rows will do. For each signal a bet
is kept against "it is good at least as often as it was, less what may be lost": a mean of likelihood ratios, whose
chance of ever coming to 1 / level is at most level while that is true (Ville 1939; Robbins 1970, "Statistical methods
related to the law of the iterated logarithm"; Shafer 2021, "Testing by betting").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from raytrain.config.section import Section
from raytrain.evaluation.statistics.proportions import wilson_interval
from raytrain.monitoring.learning.quality import is_json
from raytrain.monitoring.times import as_seconds

SignalName = Literal["approval", "whole", "format"]
_SIGNALS: tuple[SignalName, ...] = get_args(SignalName)

_ALTERNATIVES = 20
"""Rates that are bet on, evenly spaced below the one that must be held."""
_LEAST_BEFORE = 10


class FallSection(Section):
    """When a promotion is taken back."""

    signals: Annotated[list[SignalName], Field(min_length=1)] = Field(default_factory=lambda: list(_SIGNALS))
    """What is looked at: approval = thumbs up, of answers that were rated; whole = answers that came to their end;
    format = answers that are JSON, where the version before mostly wrote that."""
    by: Annotated[float, Field(ge=0.01, lt=1)] = 0.1
    """A signal may fall by so much: 10 points as 0.1."""
    level: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    """Chance that a version which is as good as the one before is taken back, all signals together, however often one
    looks."""
    hours: Annotated[float, Field(gt=0)] = 72.0
    """So long after its promotion a version may be taken back."""
    most_each: Annotated[int, Field(ge=1)] = 5
    """Thumbs of one user that count, of each version: else one user could take any version back."""
    rows_before: Annotated[int, Field(ge=_LEAST_BEFORE)] = 1_000
    """Of the version before, the last so many rated answers say how good it was."""


@dataclass(frozen=True)
class Answered:
    """One answer of a version, as far as it is judged. None = nobody can say."""

    at: float
    """Of its thumb, where it has one; else of the answer."""
    approval: bool | None
    whole: bool | None
    is_json: bool | None


@dataclass(frozen=True)
class Fall:
    """One signal of a version beside the version before."""

    signal: SignalName
    num_before: int
    before: float
    """Share of the version before."""
    num_after: int
    after: float
    held_to: float
    """The share that must be reached: the lower end of what was, less what may be lost."""
    evidence: float
    """Against it; an alarm from `limit` on, and for good once it was there."""
    limit: float

    @property
    def fell(self) -> bool:
        return self.evidence >= self.limit

    def told(self) -> str:
        return (
            f"{self.signal}: {self.after:.0%} of {self.num_after} where it was {self.before:.0%} of {self.num_before} "
            f"before; held to {self.held_to:.0%}, evidence {self.evidence:.3g} of {self.limit:.0f}"
        )


def falls(section: FallSection, before: Sequence[Answered], after: Sequence[Answered]) -> list[Fall]:
    """One for each signal that both versions have."""
    found: list[Fall] = []
    limit = len(section.signals) / section.level  # Bonferroni over signals
    for name in section.signals:
        measure = SIGNALS[name]
        was = _in_time(before, measure)[-section.rows_before :]
        now = _in_time(after, measure)
        if len(was) < _LEAST_BEFORE or not now or (name == "format" and sum(was) < 0.8 * len(was)):
            continue
        held_to = wilson_interval(sum(was), len(was)).low - section.by
        evidence = highest_evidence(now, held_to)
        found.append(
            Fall(name, len(was), sum(was) / len(was), len(now), sum(now) / len(now), max(held_to, 0.0), evidence, limit)
        )  # fmt: skip
    return found


def _in_time(rows: Sequence[Answered], measure: Callable[[Answered], bool | None]) -> list[bool]:
    """As they came in: what is known at one look is the beginning of what is known at the next."""
    return [one for row in sorted(rows, key=lambda row: row.at) if (one := measure(row)) is not None]


def highest_evidence(good: Sequence[bool], held_to: float) -> float:
    """The most that the bet against a rate of `held_to` or more has come to, after any of these. 1 = nothing."""
    if held_to <= 0.0:
        return 1.0
    rates = [held_to * place / _ALTERNATIVES for place in range(_ALTERNATIVES)]
    logs = [0.0] * _ALTERNATIVES
    highest = 0.0
    for one in good:
        for place, rate in enumerate(rates):
            ratio = rate / held_to if one else (1.0 - rate) / (1.0 - held_to)
            logs[place] += math.log(ratio) if ratio > 0.0 else -math.inf
        top = max(logs)
        if top > -math.inf:
            highest = max(highest, top + math.log(sum(math.exp(x - top) for x in logs) / _ALTERNATIVES))
    return math.exp(min(highest, 700.0))


def answered_of(request: Mapping[str, Any], feedback: Mapping[str, Any] | None, at: float) -> Answered:
    """As serving's request log and its feedback tell it. A correction says what a thumb down says; of what a client
    broke off nobody knows how it would have ended."""
    finishes, answers = list(request.get("finish") or ()), list(request.get("answers") or ())
    told = feedback or {}
    rating = told.get("rating") or ("down" if told.get("correction") else None)
    is_known = bool(finishes) and "cancelled" not in finishes
    return Answered(
        as_seconds(told["at"]) if rating and told.get("at") else at,
        {"up": True, "down": False}.get(str(rating)),
        all(one in ("stop", "tool_calls") for one in finishes) if is_known else None,
        all(map(is_json, answers)) if answers else None,
    )


SIGNALS: dict[SignalName, Callable[[Answered], bool | None]] = {
    "approval": lambda row: row.approval,
    "whole": lambda row: row.whole,
    "format": lambda row: row.is_json,
}

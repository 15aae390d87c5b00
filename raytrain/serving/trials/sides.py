"""A canary's two sides: different callers, whom their names' hashes have sent to one or the other.

Each caller counts once, with the first answer, as what one caller asks hangs together. What is compared is what came
until each side had as many callers as the trial said before: their number, and not what they were answered, decides
when that is. Thumbs count that were given until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from raytrain.evaluation.statistics.samples import Samples, samples
from raytrain.serving.trials.measures import ANSWERED, MEASURES, RATED, Measure, Share, share
from raytrain.serving.trials.rows import Kept, Row, first_of_callers

ARMS = ("production", "candidate")


@dataclass(frozen=True)
class Sides:
    """Rows by arm, one a caller."""

    answers: dict[str, list[Row]]
    """Failed ones among them."""
    rated: dict[str, list[Row]]
    """With `is_up`."""
    num_callers: int
    """Of the side that has fewer, never more than the horizon."""
    until: datetime | None
    """When each side had its callers; None where one has them not yet."""

    def scored(self) -> list[tuple[Measure, Samples]]:
        """Measures of which both sides have scores."""
        found = []
        for measure in (ANSWERED, *MEASURES, RATED):
            scores = [self._scores(measure, arm) for arm in ARMS]
            if all(scores):
                found.append((measure, samples(*scores)))
        return found

    def shares(self, arm: str) -> tuple[Share, ...]:
        """Of one side by itself."""
        rows = [one for one in self.answers[arm] if one["error"] is None]
        found = [
            share("format", rows, "is_valid"),
            share("refusals", rows, "is_refusal"),
            share("whole", rows, "is_whole"),
            share("thumbs up", self.rated[arm], "is_up"),
        ]
        return tuple(one for one in found if one is not None)

    def _scores(self, measure: Measure, arm: str) -> list[float]:
        rows = self.rated[arm] if measure is RATED else self.answers[arm]
        answered = rows if measure in (ANSWERED, RATED) else [one for one in rows if one["error"] is None]
        return [score for one in answered if (score := measure.score(one)) is not None]


def sides_of(kept: Kept, feedback: Sequence[Row]) -> Sides:
    """feedback: rows of POST /v1/feedback, of whatever requests."""
    rows = {arm: [one for one in kept.rows if one["arm"] == arm] for arm in ARMS}
    answers = {arm: first_of_callers(found) for arm, found in rows.items()}
    num_callers = min(kept.horizon, *map(len, answers.values()))
    until = None
    if num_callers >= kept.horizon:
        until = max(found[kept.horizon - 1]["at"] for found in answers.values())
        answers = {arm: [one for one in found if one["at"] <= until] for arm, found in answers.items()}
        feedback = [one for one in feedback if one["at"] <= until]
    rated = {arm: first_of_callers(_rated(found, feedback)) for arm, found in rows.items()}
    return Sides(answers, rated, num_callers, until)


def _rated(rows: Sequence[Row], feedback: Sequence[Row]) -> list[Row]:
    by_request = {one["request_id"]: one for one in rows if one["error"] is None}
    return [
        {"caller": found["caller"], "is_up": one["rating"] == "up"}
        for one in sorted(feedback, key=lambda one: one["at"])
        if one["rating"] is not None
        and (found := by_request.get(one["request_id"])) is not None
        and one["digest"] == found["digest"]
    ]

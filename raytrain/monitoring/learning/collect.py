"""From the request log to the pool: whoever agreed, good enough, without personal data, and not suspicious."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from raytrain.evaluation.safety.findings import Detector, build_detectors
from raytrain.evaluation.safety.redaction import UNSURE, without_personal_data
from raytrain.monitoring.learning.interaction import Interaction, interactions_of
from raytrain.monitoring.learning.poisoning import Known, suspicions
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow, Source
from raytrain.monitoring.learning.quality import Format, quality_of, usual_format
from raytrain.monitoring.learning.second_looks import as_interaction, earlier_rows, set_aside, take_back
from raytrain.monitoring.learning.section import LearningSection
from raytrain.monitoring.request_log import RequestLogFiles, read_request_log


@dataclass(frozen=True)
class Collected:
    """Answers of the log, by what became of them."""

    num_answers: int
    num_new: int
    """In the pool now, and not before."""
    left_out: dict[str, int]
    """By reason: no consent, a signal that was too low, known before."""
    quarantined: dict[str, str]
    """Why, by id; rows of earlier collections among them."""
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect(
    folder: Path,
    pool: InteractionPool,
    known: Sequence[Known],
    section: LearningSection,
    name: str | None = None,
) -> Collected:
    """known: what was learned before. name: of answers of this released name alone. Read again, the same log adds
    nothing."""
    log = read_request_log(folder)
    answers, notes = _answers(log, name)
    left_out: Counter[str] = Counter()
    agreed = [one for one in answers if one.consent]
    left_out["no consent"] = len(answers) - len(agreed)
    before = pool.known(one.id for one in agreed)
    contradicted = [one.id for one in agreed if one.rating == "down" or one.correction is not None]
    before -= take_back(pool, [one for one in contradicted if one in before])
    fresh = [one for one in agreed if one.id not in before]
    left_out["known before"] = len(agreed) - len(fresh)
    good, scores = _good(fresh, usual_format([one.target for one in known]), section, left_out)
    earlier, suspicious = _suspicious(good, pool, known, section, name)
    detectors = build_detectors()
    pooled = [_pooled(one, scores[one.id], suspicious.get(one.id), detectors) for one in good]
    rows = [
        row for row in pooled if UNSURE not in (row.target, *(told["content"] for told in row.prompt or ()))
    ]
    left_out["a detector failed"] = len(pooled) - len(rows)
    num_new = pool.add(rows)
    suspicious |= {one: earlier[one] for one in set_aside(pool, earlier)}
    return Collected(len(answers), num_new, {name: count for name, count in left_out.items() if count}, suspicious,
                     [*log.notes, *notes])  # fmt: skip


def _suspicious(
    good: Sequence[Interaction],
    pool: InteractionPool,
    known: Sequence[Known],
    section: LearningSection,
    name: str | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Why, of rows that are there already, and of new ones. Poison may come in portions: each collection is small, and
    what counts is all that would be learned together."""
    if not good:
        return {}, {}
    new = {one.id for one in good}
    rows = [one for one in earlier_rows(pool, name) if one.id not in new]
    found = suspicions([*map(as_interaction, rows), *good], known, section.poisoning)
    free = {one.id for one in rows if one.state == "ready"}
    return (
        {one: why for one, why in found.items() if one in free},
        {one: why for one, why in found.items() if one in new},
    )


def _answers(log: RequestLogFiles, name: str | None) -> tuple[list[Interaction], list[str]]:
    found: list[Interaction] = []
    num_odd = 0
    for request, feedback in log.answers():
        if request.get("route") == "/v1/classify":
            continue  # what a classifier answers is no text to learn from
        if name is not None and str(request.get("model") or "").partition("@")[0] != name:
            continue
        try:
            found += interactions_of(request, feedback)
        except (KeyError, TypeError, ValueError, IndexError, RecursionError):
            num_odd += 1
    return found, [f"{num_odd} rows are none of a request log's and are left out"] if num_odd else []


def _good(
    interactions: Sequence[Interaction], expected: Format, section: LearningSection, left_out: Counter[str]
) -> tuple[list[Interaction], Mapping[str, float]]:
    good, scores = [], {}
    for one in interactions:
        quality = quality_of(one, expected)
        if quality.score >= section.min_quality:
            good.append(one)
            scores[one.id] = quality.score
        else:
            left_out[f"low quality: {quality.weakest}"] += 1
    return good, scores


def _pooled(
    one: Interaction, score: float, suspicion: str | None, detectors: Mapping[str, Detector]
) -> PooledRow:
    """The log has taken personal data out; it is looked for once more where a row is made to stay."""

    def clean(text: str) -> str:
        return without_personal_data(text, detectors)

    source: Source = "answer" if one.correction is None else "correction"
    row = PooledRow(
        one.id, one.at, one.user, one.model, one.digest,
        tuple({**message, "content": clean(message["content"])} for message in one.prompt), clean(one.target),
        source, score, "ready",
    )  # fmt: skip
    return row if suspicion is None else replace(row, state="quarantined", reason=suspicion)

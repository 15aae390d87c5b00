"""Evaluations as artifacts, made of scores alone: what a comparison reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from raytrain.evaluation.metrics import metric_names
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.report import EvaluatedModel, EvaluationReport, SuiteReport
from raytrain.evaluation.results import Evaluation, Timings, open_evaluation, write_evaluation, write_timings
from raytrain.evaluation.statistics.pairs import Pairs, pair
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of

SETTINGS = {"dtype": "float32", "batch_size": 8}


def records_with(scores: Sequence[float | None], *, group_size: int = 0, text: str = "") -> list[ItemRecord]:
    """One record a score; None is an item that failed."""
    return [
        ItemRecord(
            item_id=str(i),
            item_digest=digest_of([i]),
            prompt=f"Question {i}: what is {i} + 1?",
            output=f"The answer is {i + 1 if score else i}.{text}",
            references=(str(i + 1),),
            score=score,
            error=None if score is not None else "log likelihood is nan",
            group=f"text {i // group_size}" if group_size else None,
            category=("algebra", "geometry", "words")[i % 3],
            num_prompt_tokens=12,
            num_new_tokens=5 + i % 7,
            stop_reason="end",
        )
        for i, score in enumerate(scores)
    ]


def suite_report(name: str, records: Sequence[ItemRecord], kind: str = "generation") -> SuiteReport:
    scores = [one.score or 0.0 for one in records]
    return SuiteReport(
        name,
        version="1",
        digest=digest_of([name, [one.item_digest for one in records]]),
        kind=kind,
        mode="chat",
        num_items=len(records),
        num_failed=sum(one.score is None for one in records),
        num_empty=0,
        num_cut_short=0,
        num_near_ties=None,
        metrics={metric_names(kind)[0]: sum(scores) / max(1, len(scores))},
        intervals={},
        num_prompt_tokens=0,
        num_new_tokens=0,
    )


def evaluation_of(
    place: Path,
    suites: Mapping[str, Sequence[ItemRecord]],
    *,
    reference: str | None = None,
    template: str | None = "sha256:one",
    settings: Mapping[str, Any] = SETTINGS,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    timings: Timings | None = None,
) -> Evaluation:
    """Written and read back; `changed` are fields of a suite's report."""
    model = EvaluatedModel(
        reference or place.name, base_digest=digest_of(place.name), template_digest=template
    )
    reports = {
        name: replace(suite_report(name, records), **(changed or {}).get(name, {}))
        for name, records in suites.items()
    }
    location = Location.parse(str(place))
    made = {"created_at": datetime.now(UTC).isoformat()}
    report = EvaluationReport(model, dict(settings), reports)
    written = write_evaluation(location, report, suites, provenance=made)
    if timings is not None:
        write_timings(written, timings)
    return open_evaluation(location)


def two_models(
    num_items: int, before: float, after: float, *, agree: float = 0.8, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Scores of two models that are right on such shares of the items, and mostly on the same ones."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=num_items)
    own = generator.normal(size=(2, num_items))
    latent = np.sqrt(agree) * shared + np.sqrt(1 - agree) * own
    found = []
    for scores, rate in zip(latent, (before, after), strict=True):
        right = np.zeros(num_items)
        right[np.argsort(-scores)[: round(rate * num_items)]] = 1.0
        found.append(right.tolist())
    return found[0], found[1]


def pairs_with(num_won: int, num_lost: int, num_items: int) -> Pairs:
    """Right or wrong on so many items: wins first, then losses, then items that both have wrong."""
    baseline, candidate = np.zeros(num_items), np.zeros(num_items)
    candidate[:num_won] = 1.0
    baseline[num_won : num_won + num_lost] = 1.0
    return pair(baseline, candidate)


def timed(suites: Mapping[str, Sequence[ItemRecord]], seconds: float, **resources: Any) -> Timings:
    """The same time for every item."""
    return Timings(
        {name: {one.item_id: seconds for one in found} for name, found in suites.items()}, resources
    )

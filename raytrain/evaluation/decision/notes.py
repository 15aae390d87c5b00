"""What a reader of a decision must know beside its numbers, said aloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from raytrain.evaluation.decision.conditions import Difference
from raytrain.evaluation.decision.suite_comparison import SuiteComparison
from raytrain.evaluation.decision.visible import visible
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.results import Evaluation

_LONGEST_REASON = 120


def notes_on(
    baseline: Evaluation,
    candidate: Evaluation,
    suites: Sequence[SuiteComparison],
    differences: Sequence[Difference],
) -> Iterator[str]:
    """One sentence each."""
    if are_one(baseline, candidate):
        yield "Both are the same evaluation: nothing can differ."
    for one in suites:
        yield from _on_items(one, len(baseline.records[one.name]), len(candidate.records[one.name]))
        yield from _on_failures(one)
    for difference in differences:
        if not difference.name.endswith(", items"):
            yield f"Not alike, and allowed by the contract: {difference.sentence()}."
    weighted = all(one.rules.weight is not None for one in suites)
    if len(suites) > 1:
        yield (
            "Overall, each suite has the weight that the contract gives it."
            if weighted
            else "Overall, each item weighs the same: a suite with more items counts for more."
        )


def are_one(baseline: Evaluation, candidate: Evaluation) -> bool:
    """Whether both are the same evaluation, frozen or not."""
    return _origin(baseline) == _origin(candidate)


def _origin(evaluation: Evaluation) -> str:
    """Of a frozen baseline the evaluation that was frozen."""
    artifact = evaluation.artifact
    return artifact.manifest.parents.get("evaluation", artifact.digest)


def _on_items(suite: SuiteComparison, num_baseline: int, num_candidate: int) -> Iterator[str]:
    num_common = len(suite.pairs)
    if num_common == num_baseline == num_candidate:
        return
    yield (
        f"Suite {suite.name}: only {num_common:,} common items are compared, of {num_baseline:,} of the baseline and "
        f"{num_candidate:,} of the candidate. The items left out may have gone either way."
    )


def _on_failures(suite: SuiteComparison) -> Iterator[str]:
    for who, records, number in zip(
        ("baseline", "candidate"), (suite.baseline, suite.candidate), suite.num_failed, strict=True
    ):
        if number:
            items = "item" if number == 1 else "items"
            yield (
                f"Suite {suite.name}: {number:,} {items} of the {who} without a score, counted as 0: "
                f"{_reasons(records)}."
            )


def _reason(record: ItemRecord) -> str:
    """On one line."""
    return visible(" ".join((record.error or "the score is no number").split()))[:_LONGEST_REASON]


def _reasons(records: Sequence[ItemRecord]) -> str:
    counted = Counter(
        _reason(one)
        for one in records
        if one.error is not None or one.score is None or one.score != one.score
    )
    told = [f"{number:,} × {reason}" for reason, number in counted.most_common(3)]
    return "; ".join(told) + ("; …" if len(counted) > 3 else "")

"""One suite of two evaluations, item beside item."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raytrain.evaluation.decision.contract import SuiteRules
from raytrain.evaluation.metrics import find_metric, groups_of, metric_names
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.statistics.pairs import Pairs, pair


@dataclass(frozen=True)
class SuiteComparison:
    """Both models' records of the same items in the same order, and their scores."""

    name: str
    kind: str
    metric: str
    rules: SuiteRules
    baseline: tuple[ItemRecord, ...]
    candidate: tuple[ItemRecord, ...]
    pairs: Pairs

    @property
    def num_failed(self) -> tuple[int, int]:
        """Items without a score, of the baseline and of the candidate: each counts as 0."""
        return sum(map(_has_failed, self.baseline)), sum(map(_has_failed, self.candidate))

    @property
    def share_failed(self) -> float:
        """Of the two the larger share: a baseline that fails makes any candidate look good."""
        return max(self.num_failed) / len(self.pairs)


def compare_suite(
    name: str, rules: SuiteRules, baseline: Evaluation, candidate: Evaluation
) -> SuiteComparison:
    """Items that both were asked alike.

    Raises ConfigError where the suite's kind has no such metric, DataError where no item is common.
    """
    kind = baseline.report.suites[name].kind
    metric = find_metric(kind, rules.metric)
    theirs = {one.item_id: one for one in candidate.records[name]}
    common = [
        (one, theirs[one.item_id])
        for one in baseline.records[name]
        if one.item_id in theirs and theirs[one.item_id].item_digest == one.item_digest
    ]
    left, right = tuple(one for one, _ in common), tuple(one for _, one in common)

    def value(record: ItemRecord) -> float:
        return 0.0 if _has_failed(record) else metric(record)

    pairs = pair(list(map(value, left)), list(map(value, right)), groups_of([one.group for one in left]))
    return SuiteComparison(name, kind, rules.metric or metric_names(kind)[0], rules, left, right, pairs)


def _has_failed(record: ItemRecord) -> bool:
    return record.score is None or not math.isfinite(record.score)

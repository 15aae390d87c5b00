"""Items that one model gets and the other does not, with what both wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raytrain.evaluation.decision.suite_comparison import SuiteComparison
from raytrain.evaluation.records import ItemRecord, storable


@dataclass(frozen=True)
class Flip:
    """One item whose score is another."""

    suite: str
    metric: str
    baseline: ItemRecord
    candidate: ItemRecord
    baseline_score: float
    candidate_score: float

    @property
    def change(self) -> float:
        return self.candidate_score - self.baseline_score

    @property
    def won(self) -> bool:
        return self.change > 0


@dataclass(frozen=True)
class FlipCount:
    """Of one category of a suite, or of a suite without categories."""

    suite: str
    category: str | None
    num_items: int
    num_won: int
    num_lost: int


def find_flips(suites: Iterable[SuiteComparison]) -> list[Flip]:
    """Losses first, then wins, each the largest change first; what is equal stays in the order of its items."""
    found = [
        Flip(suite.name, suite.metric, before, after, left, right)
        for suite in suites
        for before, after, left, right in zip(
            suite.baseline,
            suite.candidate,
            suite.pairs.baseline.tolist(),
            suite.pairs.candidate.tolist(),
            strict=True,
        )
        if left != right
    ]
    return sorted(found, key=lambda one: (one.won, -abs(one.change)))


def count_flips(suites: Iterable[SuiteComparison]) -> list[FlipCount]:
    """By suite and category, the most changed first."""
    counts: dict[tuple[str, str | None], list[int]] = {}
    for suite in suites:
        for record, change in zip(suite.baseline, suite.pairs.differences.tolist(), strict=True):
            count = counts.setdefault((suite.name, record.category), [0, 0, 0])
            count[0] += 1
            count[1] += change > 0
            count[2] += change < 0
    found = [FlipCount(*key, *count) for key, count in counts.items()]
    return sorted(found, key=lambda one: (-(one.num_won + one.num_lost), one.suite, one.category or ""))


def choose_shown(flips: Sequence[Flip], most: int) -> list[Flip]:
    """As many losses as wins, as far as there are; from every suite in turn, so that none hides another."""
    lost = _in_turn([one for one in flips if not one.won])
    won = _in_turn([one for one in flips if one.won])
    num_lost = min(len(lost), max(most // 2, most - len(won)))
    return lost[:num_lost] + won[: most - num_lost]


def _in_turn(flips: Sequence[Flip]) -> list[Flip]:
    seen: dict[str, int] = {}
    ranked = []
    for one in flips:
        rank = seen[one.suite] = seen.get(one.suite, 0) + 1
        ranked.append((rank, one))
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]


_TEXTS = ("suite", "metric", "item_id", "category", "prompt", "baseline_output", "candidate_output")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [
        ("references", pa.list_(pa.string())),
        ("baseline_score", pa.float64()),
        ("candidate_score", pa.float64()),
        ("baseline_error", pa.string()),
        ("candidate_error", pa.string()),
        ("baseline_tokens", pa.int64()),
        ("candidate_tokens", pa.int64()),
    ]
)


def write_flips(flips: Iterable[Flip], file: Path) -> None:
    """All of them, whole, as Parquet."""
    pq.write_table(pa.Table.from_pylist([_row(one) for one in flips], schema=_SCHEMA), file)


def _row(flip: Flip) -> dict[str, object]:
    before, after = flip.baseline, flip.candidate
    return {
        "suite": flip.suite,
        "metric": flip.metric,
        "item_id": storable(before.item_id),
        "category": None if before.category is None else storable(before.category),
        "prompt": storable(before.prompt),
        "baseline_output": storable(before.output),
        "candidate_output": storable(after.output),
        "references": [storable(one) for one in before.references],
        "baseline_score": flip.baseline_score,
        "candidate_score": flip.candidate_score,
        "baseline_error": None if before.error is None else storable(before.error),
        "candidate_error": None if after.error is None else storable(after.error),
        "baseline_tokens": before.num_new_tokens,
        "candidate_tokens": after.num_new_tokens,
    }

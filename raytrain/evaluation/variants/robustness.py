"""The drop from an item to its variant: paired, so that an item's own difficulty cancels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raytrain.errors import DataError
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.statistics.gains import Verdict, judge_gain
from raytrain.evaluation.statistics.pairs import pair


@dataclass(frozen=True)
class Robustness:
    """`verdict.gain` is variant less original: below 0 where variants are harder for the model."""

    original_score: float
    variant_score: float
    verdict: Verdict
    num_originals: int
    num_variants: int
    num_unpaired: int
    """Variants whose original has no score here; they count for nothing."""

    @property
    def drop(self) -> float:
        """Original less variant."""
        return 0.0 - self.verdict.gain

    def sentence(self) -> str:
        """For people."""
        interval = self.verdict.interval
        level, drop = 100 * interval.level, _points(self.drop)
        low, high = _points(-interval.high), _points(-interval.low)
        told = (
            f"{100 * self.original_score:.1f} % on {self.num_originals:,} originals, "
            f"{100 * self.variant_score:.1f} % on {self.num_variants:,} variants: "
            f"a drop of {drop} points ({level:g} % interval {low} to {high})"
            f", {self.verdict.word}"
        )
        return told + (f"; {self.num_unpaired} variants have no original" if self.num_unpaired else "")


def _points(share: float) -> str:
    """In points; what rounds to nothing is 0.0, not -0.0."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def robustness(
    originals: Mapping[str, float], variants: Sequence[tuple[str, float]], *, margin: float = 0.02
) -> Robustness:
    """Scores of originals by id, and (original id, score) of variants. Variants of one original are a group.

    Raises DataError where no variant has an original.
    """
    paired = [(name, originals[name], score) for name, score in variants if name in originals]
    if not paired:
        raise DataError(
            "no variant has an original",
            why=f"{len(variants)} variants name none of {len(originals)} originals",
            fix="evaluate the originals with `items.id`, the variants with `items: {id: id, group: original_id}`; "
            "docs/contamination.md",
        )
    names = [name for name, _, _ in paired]
    has_groups = len(set(names)) < len(names)
    found = pair([one for _, one, _ in paired], [one for _, _, one in paired], names if has_groups else None)
    return Robustness(
        float(found.baseline.mean()),
        float(found.candidate.mean()),
        judge_gain(found, margin=margin),
        len(set(names)),
        len(paired),
        len(variants) - len(paired),
    )


def robustness_of_records(
    originals: Sequence[ItemRecord], variants: Sequence[ItemRecord], *, margin: float = 0.02
) -> Robustness:
    """The same from records: a variant's group is its original's id. An item without a score counts as 0."""
    scores = {one.item_id: one.score or 0.0 for one in originals}
    return robustness(
        scores, [(one.group or one.item_id, one.score or 0.0) for one in variants], margin=margin
    )

"""The golden set: a frozen baseline whose answers a version must keep, item by item."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError, RefusedError
from raytrain.evaluation.decision.conditions import find_differences, refuse_unlike
from raytrain.evaluation.decision.contract import SuiteRules
from raytrain.evaluation.decision.suite_comparison import compare_suite
from raytrain.evaluation.records import storable
from raytrain.evaluation.results import Evaluation
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of, short_digest
from raytrain.storage.provenance import collect_provenance

GOLDEN_KIND = "golden_report"
_CONDITIONS = ("template", "dtype", "batch_size", "device")
"""In these a version may differ from what the golden set was frozen with: what it answers is what counts."""


@dataclass(frozen=True)
class GoldenLimits:
    """What is critical."""

    max_lost: float = 0.02
    """Share of the items that the baseline had right which may be lost."""
    critical: tuple[str, ...] = ()
    """Categories of which none may be lost."""


@dataclass(frozen=True)
class Change:
    """An item that came out otherwise."""

    suite: str
    item_id: str
    category: str | None
    before: float
    after: float
    output_before: str
    output_after: str

    @property
    def lost(self) -> bool:
        return self.after < self.before


@dataclass(frozen=True)
class Drift:
    """How far a version is from its golden set."""

    num_items: int
    num_right: int
    """That the baseline had right, or in part."""
    num_lost: int
    num_won: int
    num_reworded: int
    """The same score for another text."""
    changes: tuple[Change, ...]
    """Of scores, losses first."""
    limits: GoldenLimits
    critical_lost: tuple[str, ...]
    """Ids of items of critical categories."""
    categories: tuple[str, ...]
    """That the golden set has."""

    @property
    def passed(self) -> bool:
        return (
            not self.critical_lost
            and is_within(self.num_lost, self.limits.max_lost, self.num_right)
            and self.num_right > 0
        )

    @property
    def limit(self) -> str:
        told = f"at most {100 * self.limits.max_lost:g} % lost"
        return f"{told}, none of {', '.join(self.limits.critical)}" if self.limits.critical else told

    @property
    def why(self) -> str:
        if not self.num_right:
            return "the baseline has no item right: nothing could be lost"
        if self.critical_lost:
            return f"critical items were lost: {', '.join(self.critical_lost[:5])}"
        share = 100 * self.num_lost / self.num_right
        return f"{share:.1f} % lost, {self.num_won} won, {self.num_reworded} answered in other words as well"

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "passed": self.passed,
            "limit": self.limit,
            "why": self.why,
        }


def is_within(count: int, share: float, total: int) -> bool:
    """Whether that is at most this share of all, by the decimal that was written: 29 of 100 are 0.29."""
    return count <= Fraction(str(share)) * total


def categories_of(golden: Evaluation) -> tuple[str, ...]:
    """Of its items, by name."""
    found = {one.category for records in golden.records.values() for one in records}
    return tuple(sorted(one for one in found if one is not None))


def told_unknown(critical: Sequence[str], categories: Sequence[str]) -> str | None:
    """What is wrong where one of these is no category, and so would hold nothing back; None where all are."""
    unknown = next((one for one in critical if one not in categories), None)
    if unknown is None:
        return None
    near = nearest(unknown, categories)
    meant = f" (did you mean {near}?)" if near else ""
    return f"the golden set has no category {unknown!r}{meant}"


def check_critical(golden: Evaluation, limits: GoldenLimits) -> None:
    """Raises ConfigError where the golden set has no item of a critical category."""
    categories = categories_of(golden)
    told = told_unknown(limits.critical, categories)
    if told is not None:
        raise ConfigError(
            told,
            why=f"its categories are {', '.join(categories[:20]) or 'none'}: it would hold nothing back",
            fix="name one of these, or freeze a golden set with such items",
        )


def find_drift(golden: Evaluation, now: Evaluation, limits: GoldenLimits) -> Drift:
    """Item beside item, over every suite of the golden set.

    Raises RefusedError where the golden set is not frozen, or the two were not asked the same; what `check_critical`
    raises.
    """
    check_critical(golden, limits)
    if golden.artifact.kind != "baseline":
        raise RefusedError(
            f"{golden.artifact.location} is no golden set",
            why=f"it is an {golden.artifact.kind}, which the next one replaces",
            fix="freeze it: raytrain baseline freeze",
        )
    suites = list(golden.report.suites)
    found = find_differences(golden, now, suites, allow=_CONDITIONS, common_items=False)
    refuse_unlike(found, "the version")
    compared = [compare_suite(name, SuiteRules(suite=name), golden, now) for name in suites]
    rows = [
        Change(one.name, old.item_id, old.category, left, right, old.output, new.output)
        for one in compared
        for old, new, left, right in zip(
            one.baseline,
            one.candidate,
            one.pairs.baseline.tolist(),
            one.pairs.candidate.tolist(),
            strict=True,
        )
    ]
    changed = sorted(
        (one for one in rows if one.before != one.after),
        key=lambda one: (not one.lost, one.after - one.before),
    )
    return Drift(
        num_items=len(rows),
        num_right=sum(one.before > 0 for one in rows),
        num_lost=sum(one.lost for one in changed),
        num_won=sum(not one.lost for one in changed),
        num_reworded=sum(one.before == one.after and one.output_before != one.output_after for one in rows),
        changes=tuple(changed),
        limits=limits,
        critical_lost=tuple(one.item_id for one in changed if one.lost and one.category in limits.critical),
        categories=categories_of(golden),
    )


def golden_place(
    storage: Location, subject: str, golden: Evaluation, now: Evaluation, limits: GoldenLimits
) -> Location:
    """Where the report on these lies: the same question has one place for its answer. By other limits it is another
    one, and so it is when the model was asked again, though it answered the same."""
    question = [subject, golden.artifact.digest, now.artifact.digest, evaluated_at(now), asdict(limits)]
    return storage / "golden" / short_digest(digest_of(question))


def evaluated_at(now: Evaluation) -> str | None:
    """When the model was asked, as the evaluation's manifest says."""
    told: str | None = now.artifact.manifest.provenance.get("created_at")
    return told


def write_golden_report(
    place: Location, drift: Drift, golden: Evaluation, now: Evaluation, subject: str
) -> Artifact:
    """report.json, report.md and a line a changed item. The same evaluations and limits give the same digest."""
    parents = {"subject": subject, "baseline": golden.artifact.digest, "evaluation": now.artifact.digest}
    told = {key: value for key, value in drift.as_dict().items() if key != "changes"}
    with ArtifactWriter(place, kind=GOLDEN_KIND, parents=parents) as writer:
        text = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=True)
        (writer.path / "report.json").write_text(text + "\n", encoding="utf-8")
        (writer.path / "report.md").write_text(_markdown(drift), encoding="utf-8")
        lines = (storable(json.dumps(asdict(one), ensure_ascii=False)) for one in drift.changes)
        (writer.path / "items.jsonl").write_text("".join(f"{one}\n" for one in lines), encoding="utf-8")
        return writer.commit(collect_provenance(evaluated_at=evaluated_at(now)), replace=True)


def _markdown(drift: Drift) -> str:
    word = "PASSED" if drift.passed else "FAILED"
    lines = [
        f"# Golden set: {word}",
        "",
        f"{drift.num_lost} of {drift.num_right} right answers lost: {drift.why}.",
        "",
    ]
    return "\n".join([*lines, *_table(drift.changes[:50])]) + "\n"


def _table(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return ["No score changed."]
    rows = [
        f"| {one.suite} | {one.item_id} | {one.category or ''} | {one.before:g} | {one.after:g} |"
        for one in changes
    ]
    return ["| suite | item | category | before | after |", "|---|---|---|---|---|", *map(storable, rows)]

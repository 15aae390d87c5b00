"""Two versions side by side, and what differs between their bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raytrain.errors import PlatformError
from raytrain.evaluation.decision.contract import SuiteRules, default_contract
from raytrain.evaluation.decision.suite_comparison import compare_suite
from raytrain.evaluation.decision.verdicts import corrected, judge_suite
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.evaluation.statistics.gains import Verdict, gain_test
from raytrain.release.registry.evidence import evaluation_of, recorded_evaluations, recorded_metrics
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import Released
from raytrain.runs.compare import flat
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import FileEntry


@dataclass(frozen=True)
class Side:
    """One of the two."""

    reference: str
    released: Released
    tags: list[str]
    aliases: list[str]
    metrics: dict[str, float]
    evaluations: list[Evaluation]

    @property
    def subject(self) -> str:
        return str(self.released.entry.details.get("subject", self.released.digest))


@dataclass(frozen=True)
class PairedSuite:
    """A suite that both were asked, item by item."""

    suite: str
    num_items: int
    first: float
    second: float
    verdict: Verdict
    p_value: float
    """Corrected for as many suites as there are (Holm)."""


@dataclass
class SideBySide:
    """What two versions were made from, how they are named, and how they did."""

    first: Side
    second: Side
    suites: list[PairedSuite] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Why there are no statistics of something."""


def compare(registry: Registry, references: tuple[str, str], evaluations: Sequence[str]) -> SideBySide:
    """evaluations: places beside those that were named when the versions were released; each belongs to what it names.

    Raises NotRegisteredError where a version is not there, RefusedError where an evaluation is of neither.
    """
    found = {reference: registry.find(reference) for reference in references}
    subjects = {ref: str(one.entry.details.get("subject", one.digest)) for ref, one in found.items()}
    given = [evaluation_of(place, subjects) for place in evaluations]
    notes: list[str] = []
    first, second = [_side(registry, ref, found[ref], given, notes) for ref in references]
    result = SideBySide(first, second, notes=notes)
    result.suites = _paired(first, second, notes)
    return result


def _side(
    registry: Registry, reference: str, released: Released, given: Sequence[Evaluation], notes: list[str]
) -> Side:
    state = registry.state(reference.partition("@")[0])
    subject = str(released.entry.details.get("subject", released.digest))
    opened = [one for one in given if subject in one.artifact.manifest.parents.values()]
    for one in recorded_evaluations(released):
        if one["digest"] in {known.artifact.digest for known in opened}:
            continue
        try:
            evaluation = open_evaluation(Location.parse(one["place"]))
        except PlatformError as error:
            notes.append(f"{reference}: its evaluation cannot be read: {error.line}")
            continue
        if evaluation.artifact.digest != one["digest"]:
            notes.append(f"{reference}: {one['place']} holds by now another evaluation than {one['digest']}")
            continue
        opened.append(evaluation)
    metrics = recorded_metrics(released)
    for evaluation in opened:
        for name, suite in evaluation.report.suites.items():
            metrics |= {f"{name}/{key}": float(value) for key, value in suite.metrics.items()}
    aliases = sorted(alias for alias, version in state.aliases.items() if version == released.version)
    return Side(reference, released, sorted(state.tags[released.version]), aliases, metrics, opened)


def _paired(first: Side, second: Side, notes: list[str]) -> list[PairedSuite]:
    rules = default_contract().overall
    compared = {}
    for name in sorted({suite for one in first.evaluations for suite in one.report.suites}):
        left = next(one for one in first.evaluations if name in one.report.suites)
        right = next((one for one in second.evaluations if name in one.report.suites), None)
        if right is None:
            notes.append(f"{name}: {second.reference} was not asked it")
        elif left.report.suites[name].digest != right.report.suites[name].digest:
            notes.append(f"{name}: the two were asked different items under that name")
        else:
            if left.report.settings != right.report.settings:
                notes.append(f"{name}: the two were asked under different settings")
            compared[name] = compare_suite(name, SuiteRules(suite=name), left, right)
    p_values = (
        corrected([gain_test(one.pairs).p_value for one in compared.values()], "holm") if compared else []
    )
    found = []
    for (name, one), p_value in zip(compared.items(), p_values, strict=True):
        verdict = judge_suite(one.pairs, rules, p_value)
        means = float(one.pairs.baseline.mean()), float(one.pairs.candidate.mean())
        found.append(PairedSuite(name, len(one.pairs), *means, verdict, p_value))
    if not found:
        notes.append("no statistics: no suite of which both have an evaluation; name them by --evaluation")
    return found


Change = tuple[Any, Any]
"""Before and after; None: it is not there."""


@dataclass(frozen=True)
class Differences:
    """Of two bundles; what is alike is left out."""

    files: dict[str, tuple[FileEntry | None, FileEntry | None]]
    config: dict[str, Change]
    ingredients: dict[str, Change]
    parents: dict[str, Change]

    @property
    def any(self) -> bool:
        return bool(self.files or self.config or self.ingredients or self.parents)


def differences(first: tuple[Released, Artifact], second: tuple[Released, Artifact]) -> Differences:
    """Of two versions whose bundles were verified."""
    (one, left), (other, right) = first, second
    configs = [flat(artifact.manifest.provenance.get("config") or {}) for artifact in (left, right)]
    return Differences(
        files=_changed(left.manifest.files, right.manifest.files),
        config=_changed(configs[0], configs[1]),
        ingredients=_changed(one.made_from, other.made_from),
        parents=_changed(left.manifest.parents, right.manifest.parents),
    )


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted(before.keys() | after.keys())
    found = {name: (before.get(name), after.get(name)) for name in names}
    return {name: change for name, change in found.items() if change[0] != change[1]}

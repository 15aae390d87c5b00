"""The reports that a gate asks for beside the evaluation, made for one candidate. Each is made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import ConfigError, DataError
from raytrain.evaluation.answering.settings import EvaluateSettings
from raytrain.evaluation.baseline import baseline_place
from raytrain.evaluation.contamination.audit import judge, search_rows
from raytrain.evaluation.contamination.report import write_report as write_contamination
from raytrain.evaluation.evaluate import evaluate
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.results import open_evaluation
from raytrain.evaluation.safety.findings import BUILT_IN, build_detectors
from raytrain.evaluation.safety.model_answers import ModelAnswers
from raytrain.evaluation.safety.probes import built_in_packs
from raytrain.evaluation.safety.refusals import build_refusal_judge
from raytrain.evaluation.safety.report_files import write_report as write_safety
from raytrain.evaluation.safety.running import run_safety, with_model
from raytrain.evaluation.suite import load_suite
from raytrain.models.inference import load_for_inference
from raytrain.pipeline.steps import Stopped
from raytrain.release.gate.policy import Report, TargetSection
from raytrain.release.golden import (
    GoldenLimits,
    check_critical,
    find_drift,
    golden_place,
    write_golden_report,
)
from raytrain.storage.artifact import Artifact, artifacts_in, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, digest_of, read_manifest, short_digest
from raytrain.training.checks.pipeline import find_report
from raytrain.training.spec import RunSpec

_GOLDEN = "golden"


@dataclass(frozen=True)
class Candidate:
    """What was trained, and what is known of it."""

    model: str
    """Its place."""
    digest: str
    dataset: Artifact
    spec: RunSpec
    suites: Sequence[Suite]
    """That it was evaluated on."""
    settings: EvaluateSettings
    """By which it was."""


def reports_for(
    candidate: Candidate, targets: Sequence[TargetSection], place: Location, tell: Callable[[str], None]
) -> list[Artifact]:
    """Those that any target asks for, below `place`. Raises what making them raises."""
    asked = {one for target in targets for one in target.reports}
    found: list[Artifact] = []
    if "pipeline_check" in asked:
        report = find_report(candidate.spec)
        found += [] if report is None else [report]
    makers: dict[Report, Callable[[], list[Artifact]]] = {
        "contamination": lambda: [_contamination(candidate, one, place) for one in candidate.suites],
        "safety": lambda: [_safety(candidate, place, tell)],
        "drift": lambda: [_golden_report(candidate, target) for target in targets if "drift" in target.reports],
    }  # fmt: skip
    for name, make in makers.items():
        if name in asked:
            tell(f"making the report {name}")
            found += make()
    return found


def _contamination(candidate: Candidate, suite: Suite, place: Location) -> Artifact:
    where = place / f"contamination-{short_digest(digest_of([candidate.digest, suite.digest]))}"
    if (where / MANIFEST_NAME).exists():
        return open_artifact(where)
    audit = judge(suite, search_rows(candidate.dataset, suite))
    parents = {"dataset": candidate.dataset.digest}
    return write_contamination(audit, None, where, parents=parents, config={"source": candidate.model})


def _safety(candidate: Candidate, place: Location, tell: Callable[[str], None]) -> Artifact:
    where = place / f"safety-{short_digest(candidate.digest)}"
    if (where / MANIFEST_NAME).exists():
        return open_artifact(where)
    loaded = load_for_inference(candidate.model, cache=candidate.spec.storage.location)
    answers = ModelAnswers(loaded)
    report = run_safety(
        answers,
        built_in_packs(),
        detectors=build_detectors(BUILT_IN),
        judge=build_refusal_judge(),
        on_progress=lambda done, total: tell(f"{done} of {total} probes"),
    )
    told = with_model(report, candidate.model, candidate.digest, answers.notes)
    return write_safety(told, where)


def _golden_report(candidate: Candidate, target: TargetSection) -> Artifact:
    storage = candidate.spec.storage.location
    frozen = open_evaluation(_golden_set(storage, target.golden))
    limits = GoldenLimits(target.max_lost, tuple(target.critical))
    check_critical(frozen, limits)
    files = frozen.artifact.manifest.provenance.get("suite_files") or {}
    suites = [load_items(load_suite(Path(file))) for file in files.values()]
    result = evaluate(candidate.model, suites, candidate.settings)
    if result.evaluation is None:
        raise Stopped(result.stopped_by or "somebody")
    drift = find_drift(frozen, result.evaluation, limits)
    where = golden_place(storage, candidate.digest, frozen, result.evaluation, limits)
    return write_golden_report(where, drift, frozen, result.evaluation, candidate.digest)


def _golden_set(storage: Location, digest: str | None) -> Location:
    """Of that digest, or the baseline that is named golden."""
    if digest is None:
        place = baseline_place(storage, _GOLDEN)
        if (place / MANIFEST_NAME).exists():
            return place
        raise ConfigError(
            "the gate asks for a report on the golden set, and there is none",
            why=f"no baseline lies at {place}",
            fix=f"freeze one: raytrain baseline freeze MODEL --suite SUITE --name {_GOLDEN}",
        )
    for one in artifacts_in(storage / "baselines"):
        if read_manifest(one).digest == digest:
            return one
    raise DataError(
        f"the golden set {digest} is not at hand",
        why=f"it is none of the baselines below {storage}",
        fix="copy it there, or name another in the gate's policy",
    )

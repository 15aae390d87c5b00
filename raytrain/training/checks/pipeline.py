"""`raytrain check pipeline`: every check at small scale, and what the runs left behind: the gate before a long run."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from raytrain.data.prepare import prepare_dataset
from raytrain.errors import IntegrityError, PlatformError
from raytrain.models.base import resolve_base_model
from raytrain.storage.artifact import Artifact, ArtifactWriter, artifacts_in, open_artifact
from raytrain.storage.provenance import collect_provenance
from raytrain.training.checks import resume
from raytrain.training.checks.health import examine
from raytrain.training.checks.loss import check_loss, plan_variants_of
from raytrain.training.checks.overfit import check_overfit
from raytrain.training.checks.reproducibility import check_reproducibility
from raytrain.training.checks.variants import Variant
from raytrain.training.checks.verdict import Finding, Tell, Verdict
from raytrain.training.spec import RunSpec

REPORT_KIND = "check_report"
REPORT_FILE = "report.json"
_PLOT_FILE = "reproducibility.png"
_NUM_RUNS = 2
_NUM_OVERFIT_ROWS = 8

_FIX = "run the check that failed by itself (`raytrain check NAME RECIPE`) and follow what it says; do not train before"


def check_pipeline(spec: RunSpec, tell: Tell) -> Verdict:
    """All checks over one recipe. The report is an artifact over the recipe's base model and rows, written whether the
    check passed or not; its place stands in the verdict's files."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="raytrain-check-") as temporary:
        plot = Path(temporary) / _PLOT_FILE
        parts = _run_all(
            [
                ("loss", lambda: check_loss(spec, _prefixed(tell, "loss"), variants=_variants(spec))),
                (
                    "overfit",
                    lambda: check_overfit(spec, _prefixed(tell, "overfit"), num_rows=_NUM_OVERFIT_ROWS),
                ),
                (
                    "reproducibility",
                    lambda: check_reproducibility(
                        spec, _prefixed(tell, "reproducibility"), num_runs=_NUM_RUNS, plot=plot
                    ),
                ),
                ("resume", lambda: _resume_and_examine(spec, Path(temporary), _prefixed(tell, "resume"))),
            ]
        )
        verdict = Verdict(
            "pipeline",
            spec.name,
            tuple(_titled(part) for part in parts),
            _FIX,
            tuple(f"{part.check}: {note}" for part in parts for note in part.notes),
            seconds=time.perf_counter() - started,
        )
        artifact = write_report(spec, verdict, parts, plot)
    files = {"report": str(artifact.location), "digest": artifact.digest}
    return replace(verdict, files=files)


def _variants(spec: RunSpec) -> list[Variant]:
    """All ways of one worker, and two workers under the strategy that the recipe trains with."""
    strategy = "ddp" if spec.scaling.strategy in ("auto", "single") else spec.scaling.strategy
    return [one for one in plan_variants_of(spec) if one.num_workers == 1 or one.strategy == strategy]


def _run_all(checks: Iterable[tuple[str, Callable[[], Verdict]]]) -> list[Verdict]:
    """Each check, whatever became of those before it: a gate tells all that is wrong at once."""
    verdicts = []
    for name, check in checks:
        try:
            verdicts.append(check())
        except PlatformError as error:
            failed = Finding("the check itself", "failed", error.line)
            verdicts.append(Verdict(name, "", (failed,), error.fix))
    return verdicts


def _prefixed(tell: Tell, name: str) -> Tell:
    return lambda text: tell(f"{name}: {text}")


def _titled(part: Verdict) -> Finding:
    """A whole check as one line of the pipeline's; of a failed one, with what failed."""
    failed = [finding for finding in part.findings if finding.status == "failed"]
    told = "; ".join(f"{one.name}: {one.what}" for one in failed) if failed else _told_counts(part)
    figures = {
        status: sum(one.status == status for one in part.findings)
        for status in ("passed", "failed", "skipped")
    }
    return Finding(
        part.check,
        "passed" if part.passed else "failed",
        told,
        {**figures, "seconds": round(part.seconds, 1)},
    )


def _told_counts(part: Verdict) -> str:
    return part.line.partition(": ")[2]


def _resume_and_examine(spec: RunSpec, folder: Path, tell: Tell) -> Verdict:
    """`check resume`, and after it what its two real runs left in their folders."""
    started = time.perf_counter()
    smaller = resume.make_smaller(spec)
    evidence = resume.run_legs(smaller.spec, folder / "runs", tell)
    findings = [
        *_traces_judged(evidence),
        *examine(evidence.straight, "straight run"),
        *examine(evidence.killed, "killed run"),
    ]
    return Verdict(
        "resume",
        spec.name,
        tuple(findings),
        _FIX,
        resume.notes_of(smaller),
        seconds=time.perf_counter() - started,
    )


def _traces_judged(evidence: resume.Evidence) -> list[Finding]:
    try:
        return resume.judge(evidence.straight.trace(), evidence.killed.trace(), evidence)
    except IntegrityError as error:
        return [Finding("straight against killed", "failed", error.line)]


def write_report(spec: RunSpec, verdict: Verdict, parts: list[Verdict], plot: Path) -> Artifact:
    """The report as an artifact: `report.json` says whether the recipe passed, for which run and recipe, and why."""
    storage = spec.storage.location
    parents = {
        "base_model": resolve_base_model(spec.model, storage).digest,
        "dataset": prepare_dataset(spec.data, storage).digest,
    }
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    report = {
        **verdict.as_dict(),
        "recipe": {
            "name": spec.name,
            "identity": spec.identity,
            "run_id": spec.run_id,
            "resolved": spec.to_dict(),
        },
        "checks": [part.as_dict() for part in parts],
    }
    destination = storage / "checks" / f"{spec.run_id}-{stamp}"
    with ArtifactWriter(destination, kind=REPORT_KIND, parents=parents) as writer:
        text = json.dumps(report, indent=1, ensure_ascii=False, default=str)
        (writer.path / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        if plot.is_file():
            shutil.copyfile(plot, writer.path / _PLOT_FILE)
        return writer.commit(collect_provenance(config=spec.to_dict(), seed=spec.train.seed))


def find_report(spec: RunSpec) -> Artifact | None:
    """The newest report of a check that this recipe has passed, with the same base model and rows; read whole."""
    storage = spec.storage.location
    parents = {
        "base_model": resolve_base_model(spec.model, storage).digest,
        "dataset": prepare_dataset(spec.data, storage).digest,
    }
    for place in reversed(artifacts_in(storage / "checks")):
        if not place.name.startswith(f"{spec.run_id}-"):
            continue
        artifact = open_artifact(place, kind=REPORT_KIND)
        if dict(artifact.manifest.parents) != parents:
            continue
        report = json.loads((artifact.location / REPORT_FILE).read_bytes())
        if report["passed"] and report["recipe"]["identity"] == spec.identity:
            return artifact
    return None

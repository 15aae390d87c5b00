"""The evaluation that a policy asks for. What a decision says is not believed: it is decided anew, from the evaluations
that it names, by the policy's own contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raytrain.errors import PlatformError
from raytrain.evaluation.decision.contract import ContractSection
from raytrain.evaluation.decision.decide import Comparison, Decision, decide
from raytrain.evaluation.decision.headline import evidence, headline, outcome
from raytrain.evaluation.report import EvaluatedModel
from raytrain.evaluation.results import Evaluation
from raytrain.release.gate.about import About
from raytrain.release.gate.reports import time_of
from raytrain.release.gate.rules import Reading, Status
from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import short_digest

Find = Callable[[str], Evaluation | None]
"""An evaluation by its digest; None where it is not at hand."""


@dataclass(frozen=True)
class Asked:
    """What a policy asks of an evaluation."""

    contract: ContractSection
    baseline: str | None
    """Digest of what it must have been compared with; None = of any frozen baseline."""


_COMPARE = "raytrain compare BASELINE EVALUATION, with the contract of the policy"


def trained_digest(model: EvaluatedModel) -> str | None:
    """Digest of the trained artifact that answered."""
    return model.adapter_digest or model.base_digest


def read_decision(artifact: Artifact, about: About, asked: Asked, find: Find) -> Reading | str:
    """A reading of a decision, or in words why it is about something else."""
    parents = artifact.manifest.parents
    wanted = {role: digest for role, digest in parents.items() if role.startswith(("baseline", "candidate"))}
    found = {role: find(digest) for role, digest in wanted.items()}
    missing = [f"{role} {wanted[role]}" for role, one in found.items() if one is None]
    candidates = [one for role, one in found.items() if one is not None and role != "baseline"]
    names = _who(artifact) | {trained_digest(one.report.model) for one in candidates}
    if about.subject not in names:
        return f"it is about {', '.join(map(str, names)) or 'nothing'}, the bundle of {about.subject}"
    baseline = found.get("baseline")
    own = any(trained_digest(one.report.model) == about.subject for one in candidates)
    if missing or baseline is None or not own:
        told = (
            "not at hand",
            _title(asked.contract),
            f"it cannot be decided anew without {'; '.join(missing) or 'its own'}",
        )
        return _failed(artifact, *told, change="give these with --evidence as well")
    judged = decide_anew(asked, baseline, candidates, about)
    made, text = judged.made, judged.made_text
    decided, decided_text = time_of(artifact)
    # A decision of today on an evaluation of last year is of last year, and on one without a time has none.
    if made is not None and decided is not None and decided < made:
        made, text = decided, decided_text
    rests_on = ((judged.digest, None), *judged.rests_on)
    return replace(judged, digest=artifact.digest, made=made, made_text=text, rests_on=rests_on)


def _who(artifact: Artifact) -> set[str | None]:
    """Whom a decision says that it is about: enough to tell it from others, and for nothing else."""
    content = json.loads((artifact.path / "decision.json").read_text(encoding="utf-8"))
    models = [one["candidate"]["model"] for one in content["decisions"]]
    return {one.get("adapter_digest") or one.get("base_digest") for one in models}


def decide_anew(
    asked: Asked, baseline: Evaluation, candidates: Sequence[Evaluation], about: About
) -> Reading:
    """A reading of the subject's evaluation, as if nothing that it rests on were signed. candidates: that one, beside
    others where these were compared with it."""
    reading = _decided(asked, baseline, candidates, about)
    others = [one.artifact.digest for one in (baseline, *candidates) if one.artifact.digest != reading.digest]
    return replace(reading, rests_on=tuple((one, None) for one in others))


def _decided(asked: Asked, baseline: Evaluation, candidates: Sequence[Evaluation], about: About) -> Reading:
    own = [one for one in candidates if trained_digest(one.report.model) == about.subject]
    artifact, digest = own[0].artifact, baseline.artifact.digest
    if baseline.artifact.kind != "baseline":
        told = ("not frozen", "a frozen baseline", f"{digest} is an {baseline.artifact.kind}")
        return _failed(artifact, *told, change="raytrain baseline freeze, and compare with that")
    if asked.baseline not in (None, digest):
        told = ("another baseline", str(asked.baseline), f"it was compared with {digest}")
        return _failed(artifact, *told, change="raytrain compare with the one that the policy names")
    title = _title(asked.contract)
    try:
        comparison = decide(asked.contract, baseline, candidates)
    except PlatformError as error:
        return _failed(artifact, "cannot be decided", title, error.line, change=error.fix)
    decisions = [one for one in comparison.decisions if one.candidate.evaluation in own]
    return _reading(min(decisions, key=lambda one: _WORST_FIRST.index(_status(one))), comparison)


_WORST_FIRST: tuple[Status, ...] = ("failed", "pending", "passed")


def _reading(decision: Decision, comparison: Comparison) -> Reading:
    contract, evaluated, status = comparison.contract, decision.candidate.evaluation, _status(decision)
    made, text = time_of(evaluated.artifact)
    return Reading(
        "evaluation",
        evaluated.artifact.digest,
        status,
        f"{headline(decision)} ({evidence(decision)})",
        _title(contract),
        outcome(decision, contract),
        "" if status == "passed" else _needed(decision, comparison),
        made=made,
        made_text=text,
        suites=tuple(evaluated.report.suites[one.comparison.name].digest for one in decision.suites),
    )


def _status(decision: Decision) -> Status:
    if decision.promoted:
        return "passed"
    return "failed" if any(gate.status == "failed" for gate in decision.gates) else "pending"


def _needed(decision: Decision, comparison: Comparison) -> str:
    held = [gate for gate in decision.gates if not gate.passed]
    told = "; ".join(f"{gate.name}: {gate.why}" for gate in held)
    return f"{comparison.contract.contract} asks more: {told}"


def _title(contract: ContractSection) -> str:
    return f"contract {contract.contract} {contract.version} ({short_digest(contract.digest)})"


def _failed(artifact: Artifact, value: str, limit: str, why: str, *, change: str = _COMPARE) -> Reading:
    made, text = time_of(artifact)
    return Reading(
        "evaluation", artifact.digest, "failed", value, limit, why, change, made=made, made_text=text
    )

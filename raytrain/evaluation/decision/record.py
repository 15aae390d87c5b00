"""The decision as an artifact: for programs, for people, and what it was decided by. No clock is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from raytrain.evaluation.decision.contract import ContractSection
from raytrain.evaluation.decision.decide import Comparison, Decision, Side, SuiteResult
from raytrain.evaluation.decision.flips import Flip, choose_shown, count_flips, find_flips, write_flips
from raytrain.evaluation.decision.headline import action, evidence, headline, outcome
from raytrain.evaluation.decision.lengths import score_by_length
from raytrain.evaluation.decision.markdown import render_markdown
from raytrain.evaluation.decision.page import render_page
from raytrain.evaluation.records import json_safe
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.statistics.gains import Verdict
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of, short_digest
from raytrain.storage.provenance import collect_provenance

FORMAT = 1
KIND = "decision"

_FLIPS_IN_RECORD = 50
_LONGEST_TEXT = 2_000
"""Of a flip in decision.json; flips.parquet has every flip whole."""


def record_of(comparison: Comparison) -> dict[str, Any]:
    """Everything decided, as JSON can hold it."""
    contract = comparison.contract
    chosen = comparison.chosen
    found = {
        "format": FORMAT,
        "contract": {"name": contract.contract, "version": contract.version, "digest": contract.digest},
        "baseline": _side(comparison.baseline),
        "decisions": [_decision(one, comparison) for one in comparison.decisions],
        "ranking": [asdict(one) for one in comparison.ranking],
        "chosen": None if chosen is None else chosen.candidate.name,
        "promoted": chosen is not None,
        "approvals": [{"who": who, "state": "pending"} for who in contract.approvals],
        "not_judged": list(comparison.not_judged),
    }
    cleaned: dict[str, Any] = json_safe(found)
    return cleaned


def write_decision(place: Location, comparison: Comparison) -> Artifact:
    """Publish a decision. The same evaluations, with the same timings and names, and the same contract give the same
    digest; the contract's description stands in the provenance alone."""
    decisions = comparison.decisions
    parents = {"baseline": comparison.baseline.evaluation.artifact.digest}
    for i, one in enumerate(decisions, start=1):
        role = "candidate" if len(decisions) == 1 else f"candidate_{i}"
        parents[role] = one.candidate.evaluation.artifact.digest
    with ArtifactWriter(place, kind=KIND, parents=parents) as writer:
        _write_json(writer.path / "decision.json", record_of(comparison))
        (writer.path / "decision.md").write_text(render_markdown(comparison), encoding="utf-8")
        (writer.path / "decision.html").write_text(render_page(comparison), encoding="utf-8")
        contract = comparison.contract
        (writer.path / "contract.yaml").write_text(
            yaml.safe_dump(contract.asked, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        for i, one in enumerate(decisions, start=1):
            name = "flips.parquet" if len(decisions) == 1 else f"flips_{i}.parquet"
            write_flips(find_flips(suite.comparison for suite in one.suites), writer.path / name)
        return writer.commit(collect_provenance(config=contract.model_dump(mode="json")), replace=True)


def decision_place(
    storage: Location, evaluations: Sequence[Evaluation], contract: ContractSection
) -> Location:
    """Named by what is compared, the baseline first: the same question has one place for its answer."""
    digests = [one.artifact.digest for one in evaluations]
    return storage / "decisions" / short_digest(digest_of([*digests, contract.digest]))


def _write_json(file: Any, value: object) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")


def _side(side: Side) -> dict[str, Any]:
    report, timings = side.evaluation.report, side.evaluation.timings
    return {
        "name": side.name,
        "evaluation": side.evaluation.artifact.digest,
        "model": asdict(report.model),
        "settings": report.settings,
        "suites": {
            name: {"version": one.version, "digest": one.digest} for name, one in report.suites.items()
        },
        "timings": None if timings is None else digest_of(asdict(timings)),
    }


def _decision(decision: Decision, comparison: Comparison) -> dict[str, Any]:
    suites = [one.comparison for one in decision.suites]
    flips, lengths = find_flips(suites), score_by_length(suites)
    return {
        "candidate": _side(decision.candidate),
        "headline": headline(decision),
        "evidence": evidence(decision),
        "outcome": outcome(decision, comparison.contract),
        "action": action(decision),
        "promoted": decision.promoted,
        "verdict": _verdict(decision.verdict),
        "weights": decision.pooled.weights,
        "gates": [{**asdict(one), "number": one.number} for one in decision.gates],
        "suites": [_suite(one) for one in decision.suites],
        "flips": {
            "won": sum(one.won for one in flips),
            "lost": sum(not one.won for one in flips),
            "by_category": [asdict(one) for one in count_flips(suites)],
            "shown": [_flip(one) for one in choose_shown(flips, _FLIPS_IN_RECORD)],
        },
        "lengths": None if lengths is None else asdict(lengths),
        "differences": [asdict(one) for one in decision.differences],
        "notes": list(decision.notes),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {**asdict(verdict), "sentence": verdict.sentence()}


def _suite(result: SuiteResult) -> dict[str, Any]:
    one = result.comparison
    failed_baseline, failed_candidate = one.num_failed
    return {
        "suite": one.name,
        "metric": one.metric,
        "weight": result.weight,
        "num_items": len(one.pairs),
        "num_units": one.pairs.num_units,
        "baseline_score": float(one.pairs.baseline.mean()),
        "candidate_score": float(one.pairs.candidate.mean()),
        "won": one.pairs.num_won,
        "lost": one.pairs.num_lost,
        "failed_baseline": failed_baseline,
        "failed_candidate": failed_candidate,
        "p_value_corrected": result.p_value,
        "verdict": _verdict(result.verdict),
    }


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "suite": flip.suite,
        "item_id": flip.baseline.item_id,
        "category": flip.baseline.category,
        "baseline_score": flip.baseline_score,
        "candidate_score": flip.candidate_score,
        "prompt": flip.baseline.prompt[:_LONGEST_TEXT],
        "references": [one[:_LONGEST_TEXT] for one in flip.baseline.references],
        "baseline_output": flip.baseline.output[:_LONGEST_TEXT],
        "candidate_output": flip.candidate.output[:_LONGEST_TEXT],
    }

"""From evaluations and a contract to a decision: reads top to bottom, writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from raytrain.errors import ConfigError
from raytrain.evaluation.decision.conditions import (
    Difference,
    check_allowed,
    find_differences,
    refuse_unlike,
)
from raytrain.evaluation.decision.contract import ContractSection, SuiteRules, rules_by_suite
from raytrain.evaluation.decision.gates import (
    Gate,
    JudgedSuite,
    gate_of_many,
    gates_of_scores,
    promotion_p_value,
)
from raytrain.evaluation.decision.limits import gates_of_limits
from raytrain.evaluation.decision.notes import are_one, notes_on
from raytrain.evaluation.decision.ranking import Ranked, rank
from raytrain.evaluation.decision.suite_comparison import SuiteComparison, compare_suite
from raytrain.evaluation.decision.verdicts import (
    Together,
    corrected,
    judge_suite,
    judge_together,
    together,
)
from raytrain.evaluation.decision.visible import visible
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.statistics.gains import PooledGain, Verdict, gain_test
from raytrain.storage.manifest import short_digest


@dataclass(frozen=True)
class Side:
    """One of the evaluations."""

    name: str
    """For tables; no two sides have the same."""
    evaluation: Evaluation


@dataclass(frozen=True)
class SuiteResult:
    """What one suite says of a candidate."""

    comparison: SuiteComparison
    weight: float
    """Its share in the gain over all suites."""
    verdict: Verdict
    p_value: float
    """Corrected for the other suites and candidates."""


@dataclass(frozen=True)
class Decision:
    """What is decided on one candidate."""

    candidate: Side
    verdict: Verdict
    pooled: PooledGain
    suites: tuple[SuiteResult, ...]
    gates: tuple[Gate, ...]
    differences: tuple[Difference, ...]
    """Of conditions, all of them allowed."""
    notes: tuple[str, ...]
    nothing_can_differ: bool = False
    """Baseline and candidate are the same evaluation: no number of items would tell them apart."""

    @property
    def promoted(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Comparison:
    """A baseline, the decisions on its candidates from the best gain to the least, and what they rest on."""

    contract: ContractSection
    baseline: Side
    decisions: tuple[Decision, ...]
    ranking: tuple[Ranked, ...]
    """Of several candidates; empty with one."""
    not_judged: tuple[str, ...]
    """Suites of the baseline that the contract does not name."""

    @property
    def chosen(self) -> Decision | None:
        """Of the candidates that passed every gate, the one that gains most."""
        return next((one for one in self.decisions if one.promoted), None)


@dataclass(frozen=True)
class _Judged:
    """A candidate's figures before they are corrected for the other candidates."""

    side: Side
    differences: list[Difference]
    suites: list[SuiteComparison]
    whole: Together

    @property
    def by_name(self) -> dict[str, JudgedSuite]:
        return {one.name: JudgedSuite(one.rules, one.pairs, one.share_failed) for one in self.suites}


@dataclass(frozen=True)
class _Corrected:
    """A candidate's p-values, after the contract's correction."""

    promotion: float | None
    """None where it is the only candidate."""
    overall: float
    suites: list[float]


def decide(
    contract: ContractSection,
    baseline: Evaluation,
    candidates: Sequence[Evaluation],
    *,
    common_items: bool = False,
) -> Comparison:
    """Compare each candidate with the baseline, and hold it against the contract.

    Raises RefusedError where the conditions were not alike, ConfigError where the contract asks for what is not there.
    """
    first, *others = _sides([baseline, *candidates])
    _check_distinct(others)
    check_allowed(contract.conditions.allow, [baseline, *candidates])
    rules = rules_by_suite(contract, baseline.report.suites, [one.evaluation.report.suites for one in others])
    judged = [_judge(contract, rules, first, one, common_items=common_items) for one in others]
    decisions = [
        _decision(contract, first, one, p_values, len(judged))
        for one, p_values in zip(judged, _p_values(contract, judged), strict=True)
    ]
    decisions.sort(key=lambda one: -one.pooled.gain)
    ranking = rank(contract, rules, [(one.candidate.name, one.candidate.evaluation) for one in decisions])
    not_judged = tuple(name for name in baseline.report.suites if name not in rules)
    return Comparison(contract, first, tuple(decisions), ranking, not_judged)


def _sides(evaluations: Sequence[Evaluation]) -> list[Side]:
    """Named as the user named the model, without the folders above it; with a digest where that is not enough."""
    references = [_short_name(one.report.model.reference) for one in evaluations]
    names = [
        name if references.count(name) == 1 else f"{name} ({short_digest(one.artifact.digest)})"
        for name, one in zip(references, evaluations, strict=True)
    ]
    return [Side(name, one) for name, one in zip(names, evaluations, strict=True)]


def _short_name(reference: str) -> str:
    """Of a path or an address the last part; a hub's ORGANISATION/NAME stays whole."""
    is_place = reference.startswith(("/", ".", "~")) or "://" in reference
    return visible((reference.rstrip("/").rpartition("/")[2] if is_place else reference) or "model")


def _check_distinct(candidates: Sequence[Side]) -> None:
    digests = Counter(one.evaluation.artifact.digest for one in candidates)
    twice = [one.name for one in candidates if digests[one.evaluation.artifact.digest] > 1]
    if twice:
        raise ConfigError(
            f"the candidate {twice[0]} stands twice",
            why="a ranking has each candidate once",
            fix="name each evaluation once",
        )


def _judge(
    contract: ContractSection,
    rules: Mapping[str, SuiteRules],
    baseline: Side,
    candidate: Side,
    *,
    common_items: bool,
) -> _Judged:
    left, right = baseline.evaluation, candidate.evaluation
    differences = find_differences(
        left, right, rules, allow=contract.conditions.allow, common_items=common_items
    )
    refuse_unlike(differences, candidate.name)
    suites = [compare_suite(name, of_suite, left, right) for name, of_suite in rules.items()]
    pairs = {one.name: one.pairs for one in suites}
    return _Judged(candidate, differences, suites, together(pairs, _weights(suites), contract.overall.level))


def _weights(suites: Sequence[SuiteComparison]) -> dict[str, float] | None:
    """A contract gives every suite a weight, or none."""
    return {one.name: one.rules.weight for one in suites if one.rules.weight is not None} or None


def _p_values(contract: ContractSection, judged: Sequence[_Judged]) -> Iterator[_Corrected]:
    """Chances for candidates are corrected over candidates, words about suites over all suites of all candidates."""
    correction = contract.overall.correction
    promotion = corrected([promotion_p_value(one.by_name, one.whole) for one in judged], correction)
    overall = corrected([one.whole.pooled.test.p_value for one in judged], correction)
    of_suites = iter(
        corrected([gain_test(suite.pairs).p_value for one in judged for suite in one.suites], correction)
    )
    for i, one in enumerate(judged):
        yield _Corrected(
            promotion[i] if len(judged) > 1 else None, overall[i], list(islice(of_suites, len(one.suites)))
        )


def _decision(
    contract: ContractSection, baseline: Side, one: _Judged, p_values: _Corrected, num_candidates: int
) -> Decision:
    asked, shares = contract.overall, one.whole.pooled.weights
    verdict = judge_together(one.whole, asked, p_values.overall)
    gates = list(gates_of_scores(contract, one.by_name, one.whole, p_values.overall))
    if p_values.promotion is not None:
        gates.append(gate_of_many(p_values.promotion, num_candidates, asked, verdict.needs_items))
    items = {suite.name: [record.item_id for record in suite.candidate] for suite in one.suites}
    evaluation = one.side.evaluation
    kinds = {name: evaluation.report.suites[name].kind for name in items}
    gates += gates_of_limits(contract.limits, evaluation.timings, items, kinds)
    is_one = are_one(baseline.evaluation, evaluation)
    return Decision(
        one.side,
        _without_items(verdict) if is_one else verdict,
        one.whole.pooled,
        tuple(
            SuiteResult(suite, shares[suite.name], _without_items(told) if is_one else told, p_value)
            for suite, p_value in zip(one.suites, p_values.suites, strict=True)
            for told in [judge_suite(suite.pairs, asked, p_value)]
        ),
        tuple(map(_gate_of_one, gates) if is_one else gates),
        tuple(one.differences),
        tuple(notes_on(baseline.evaluation, one.side.evaluation, one.suites, one.differences)),
        is_one,
    )


def _without_items(verdict: Verdict) -> Verdict:
    return replace(verdict, needs_items=None)


def _gate_of_one(gate: Gate) -> Gate:
    """As it stands where both are the same evaluation."""
    if gate.needs_items is None:
        return gate
    return replace(gate, why="both are the same evaluation: nothing can differ", needs_items=None)

"""Several candidates in the order of their gains, and which of them cannot be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raytrain.evaluation.decision.contract import ContractSection, SuiteRules
from raytrain.evaluation.decision.suite_comparison import compare_suite
from raytrain.evaluation.decision.verdicts import corrected, together
from raytrain.evaluation.results import Evaluation


@dataclass(frozen=True)
class Ranked:
    """A candidate's place. `like` are those whose order to it chance may have made."""

    place: int
    name: str
    like: tuple[str, ...]


def rank(
    contract: ContractSection,
    rules: Mapping[str, SuiteRules],
    candidates: Sequence[tuple[str, Evaluation]],
) -> tuple[Ranked, ...]:
    """Places of candidates that come in the order of their gains. Each two are compared over all suites, with the
    contract's correction over all pairs of candidates; nothing where there is one."""
    if len(candidates) < 2:
        return ()
    couples = list(itertools.combinations(candidates, 2))
    p_values = [_p_value(contract, rules, left, right) for (_, left), (_, right) in couples]
    like: dict[str, list[str]] = {name: [] for name, _ in candidates}
    held = corrected(p_values, contract.overall.correction)
    for ((left, _), (right, _)), p_value in zip(couples, held, strict=True):
        if p_value > contract.overall.level:
            like[left].append(right)
            like[right].append(left)
    return tuple(Ranked(i, name, tuple(like[name])) for i, (name, _) in enumerate(candidates, start=1))


def _p_value(
    contract: ContractSection, rules: Mapping[str, SuiteRules], left: Evaluation, right: Evaluation
) -> float:
    pairs = {name: compare_suite(name, one, left, right).pairs for name, one in rules.items()}
    weights = {name: one.weight for name, one in rules.items() if one.weight is not None}
    return together(pairs, weights or None, contract.overall.level).pooled.test.p_value

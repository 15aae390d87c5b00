"""How many items would tell: more than there are, enough to tell, and the same number wherever it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluations import evaluation_of, pairs_with, records_with

from raytrain.evaluation.decision.contract import (
    ContractSection,
    OverallSection,
    SuiteRules,
    default_contract,
)
from raytrain.evaluation.decision.decide import decide
from raytrain.evaluation.decision.gates import JudgedSuite, gates_of_scores
from raytrain.evaluation.decision.headline import headline
from raytrain.evaluation.decision.verdicts import judge_suite, judge_together, together
from raytrain.evaluation.results import Evaluation
from raytrain.evaluation.statistics.equivalence import equivalent
from raytrain.evaluation.statistics.gains import equivalent_items, judge_gain

pytestmark = pytest.mark.whole

DEFAULT = default_contract()


@pytest.mark.parametrize(
    ("won", "lost", "num_items"),
    [(265, 235, 5000), (262, 237, 5000), (254, 229, 5000), (100, 75, 1000), (12, 8, 100), (0, 0, 100)],
)
@pytest.mark.parametrize("num_suites", [1, 2])
def test_one_number_more_than_there_are_stands_in_the_headline_and_the_gates(
    won: int, lost: int, num_items: int, num_suites: int
) -> None:
    part = pairs_with(won // num_suites, lost // num_suites, num_items // num_suites)
    suites = {str(i): part for i in range(num_suites)}
    whole = together(suites, None, DEFAULT.overall.level)
    verdict = judge_together(whole, DEFAULT.overall)
    assert verdict.word == "cannot tell"
    assert (verdict.needs_items or 0) > num_items
    judged = {name: JudgedSuite(DEFAULT.suites[0], pairs) for name, pairs in suites.items()}
    told = [
        one.needs_items
        for one in gates_of_scores(DEFAULT, judged, whole)
        if one.name in ("overall: not by chance", "overall: enough items") and one.status == "cannot tell"
    ]
    assert told
    assert set(told) == {verdict.needs_items}
    if num_suites == 1:
        alone = judge_suite(part, DEFAULT.overall, whole.pooled.test.p_value)
        assert alone.needs_items == verdict.needs_items


@pytest.mark.parametrize(
    ("won", "lost", "num_items", "corrected"),
    [
        (265, 235, 5000, None),
        (130, 80, 1000, 0.4),
        (56, 24, 1000, 0.06),
        (80, 30, 1000, 1.0),
        (25, 5, 60, 0.2),
    ],
)
def test_a_verdict_never_asks_for_items_that_are_there(
    won: int, lost: int, num_items: int, corrected: float | None
) -> None:
    """Also where the test alone would have told, and the correction for many suites took it away."""
    verdict = judge_gain(pairs_with(won, lost, num_items), margin=0.01, p_value=corrected)
    assert verdict.word == "cannot tell"
    assert (verdict.needs_items or 0) > num_items


def test_a_gain_smaller_than_what_is_sought_is_sized_by_itself() -> None:
    """5,000 items see 3 points, and cannot say what 0.6 points are: some 20,000 can."""
    whole = together({"sums": pairs_with(265, 235, 5000)}, None, 0.05)
    assert judge_together(whole, DEFAULT.overall).needs_items == pytest.approx(21_800, rel=0.02)


def test_items_that_are_said_to_show_equivalence_do_four_times_of_five() -> None:
    for won, lost in [(50, 50), (52, 48)]:
        needed = equivalent_items(pairs_with(won, lost, 1000), 0.01)
        assert needed is not None
        generator = np.random.default_rng(3)
        drawn = generator.multinomial(
            needed, [won / 1000, lost / 1000, 1 - (won + lost) / 1000], 400
        ).tolist()
        told = [equivalent(pairs_with(one, other, needed), 0.01).p_value <= 0.05 for one, other, _ in drawn]
        assert np.mean(told) == pytest.approx(0.8, abs=0.06), (won, lost)


def test_what_is_equivalent_needs_no_more_items() -> None:
    whole = together({"sums": pairs_with(51, 50, 5000)}, None, 0.05)
    assert judge_together(whole, DEFAULT.overall).word == "equivalent"
    judged = {"sums": JudgedSuite(DEFAULT.suites[0], whole.suites["sums"])}
    gate = next(
        one for one in gates_of_scores(DEFAULT, judged, whole) if one.name == "overall: not by chance"
    )
    assert gate.needs_items is None
    assert gate.why.endswith("and it is surely less than 1 point")


def test_of_several_candidates_the_headline_and_the_gates_name_one_number(tmp_path: Path) -> None:
    """Alone p = 0.02, which three candidates make 0.07: the first is told what the correction asks for."""
    bare = ContractSection(
        contract="bare",
        suites=[SuiteRules(suite="*", min_gain=None, max_loss=None)],
        overall=OverallSection(min_gain=0.0, min_power=None),
    )
    place = evaluation_of(tmp_path / "base", {"sums": records_with([1.0] * 200 + [0.0] * 200)})

    def candidate(num_won: int, num_lost: int, name: str) -> Evaluation:
        scores = [0.0] * num_lost + [1.0] * (200 - num_lost + num_won) + [0.0] * (200 - num_won)
        return evaluation_of(tmp_path / name, {"sums": records_with(scores)})

    found = decide(bare, place, [candidate(*one) for one in ((20, 8, "a"), (10, 10, "b"), (9, 12, "c"))])
    first = found.decisions[0]
    (held,) = [one for one in first.gates if not one.passed]
    assert (held.name, held.needs_items) == ("several candidates", first.verdict.needs_items)
    assert (held.needs_items or 0) > 400
    assert headline(first).partition(": ")[2] in held.why

"""Gates as tables: what passes, what fails, what cannot be told and how many items it would take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluations import evaluation_of, pairs_with, records_with, two_models

from raytrain.evaluation.decision.contract import (
    ContractSection,
    LimitsSection,
    OverallSection,
    SuiteRules,
    default_contract,
)
from raytrain.evaluation.decision.decide import Comparison, decide
from raytrain.evaluation.decision.gates import Gate, JudgedSuite, gates_of_scores
from raytrain.evaluation.decision.verdicts import judge_together, together
from raytrain.evaluation.statistics.equivalence import no_worse
from raytrain.evaluation.statistics.pairs import Pairs
from raytrain.evaluation.statistics.planning import (
    items_for_no_worse,
    pooled_items,
    pooled_power_at,
    power_at,
)

pytestmark = pytest.mark.whole

DEFAULT = default_contract()


def gates(contract: ContractSection, **suites: Pairs) -> dict[str, Gate]:
    rules = {one.suite: one for one in contract.suites}
    judged = {name: JudgedSuite(rules.get(name, rules["*"]), pairs) for name, pairs in suites.items()}
    whole = together(suites, None, contract.overall.level)
    return {one.name: one for one in gates_of_scores(contract, judged, whole)}


@pytest.mark.parametrize(
    ("won", "lost", "num_items", "statuses"),
    [
        # gain, not by chance, enough items; suite: gain, no loss
        (250, 100, 2000, ("passed", "passed", "passed", "passed", "passed")),
        (45, 5, 200, ("passed", "passed", "passed", "passed", "passed")),  # few items, and yet surely above 3
        (40, 16, 400, ("passed", "passed", "cannot tell", "passed", "passed")),
        (125, 90, 2000, ("failed", "passed", "passed", "failed", "passed")),
        (12, 8, 100, ("passed", "cannot tell", "cannot tell", "passed", "cannot tell")),
        (0, 0, 2000, ("failed", "cannot tell", "passed", "failed", "passed")),
        (0, 0, 100, ("failed", "cannot tell", "cannot tell", "failed", "cannot tell")),
        (100, 250, 2000, ("failed", "failed", "passed", "failed", "failed")),
    ],
)
def test_of_one_suite(won: int, lost: int, num_items: int, statuses: tuple[str, ...]) -> None:
    found = gates(DEFAULT, sums=pairs_with(won, lost, num_items))
    names = (
        "overall: gain",
        "overall: not by chance",
        "overall: enough items",
        "sums: gain",
        "sums: no loss",
    )
    assert tuple(found[name].status for name in names) == statuses


def test_cannot_tell_says_how_many_items_would() -> None:
    found = gates(DEFAULT, sums=pairs_with(12, 8, 100))
    for name in ("overall: not by chance", "overall: enough items", "sums: no loss"):
        assert (found[name].needs_items or 0) > 100
        assert "needs about" in found[name].why
    assert "cannot rule out a loss of more than 1 point" in found["sums: no loss"].why


def test_what_is_not_asked_is_no_gate() -> None:
    lax = ContractSection(
        contract="lax",
        suites=[SuiteRules(suite="*", min_gain=None, max_loss=None)],
        overall=OverallSection(min_gain=0.0, min_power=None),
        limits=LimitsSection(max_failed_items=None),
    )
    assert list(gates(lax, sums=pairs_with(5, 5, 50))) == ["overall: gain", "overall: not by chance"]


@pytest.mark.parametrize(("won", "lost", "status"), [(30, 5, "passed"), (29, 5, "failed"), (5, 30, "failed")])
def test_resolved_is_net(won: int, lost: int, status: str) -> None:
    code = ContractSection(contract="code", suites=[SuiteRules(suite="*", min_resolved=25)])
    gate = gates(code, bugs=pairs_with(won, lost, 300))["bugs: resolved"]
    assert (gate.status, gate.value) == (status, won - lost)


def test_exactly_what_is_asked_is_enough() -> None:
    found = gates(DEFAULT, **{name: pairs_with(30, 0, 1000) for name in ("a", "b", "c")})
    assert found["overall: gain"].passed


def test_a_contract_that_asks_for_no_gain_still_says_how_many_items() -> None:
    """The margin of equivalence is then the smallest gain that anybody cares for."""
    modest = ContractSection(
        contract="modest",
        suites=[SuiteRules(suite="*", min_gain=None)],
        overall=OverallSection(min_gain=0.0),
    )
    gate = gates(modest, sums=pairs_with(20, 20, 400))["overall: enough items"]
    assert gate.status == "cannot tell"
    assert (gate.needs_items or 0) > 5_000


def test_the_interval_and_the_gate_against_a_loss_say_the_same() -> None:
    """The lower end of the 95 % interval lies above -1 point exactly where the gate passes."""
    for won, lost in [(60, 50), (70, 50), (80, 50), (62, 50), (58, 20), (40, 40)]:
        gate = gates(DEFAULT, sums=pairs_with(won, lost, 1000))["sums: no loss"]
        assert gate.value is not None
        assert gate.passed is (gate.value > -0.01), (won, lost)


@pytest.mark.parametrize(
    ("won", "lost", "num_items", "word"),
    [
        (250, 100, 2000, "better"),
        (100, 250, 2000, "worse"),
        (8, 30, 100, "worse"),  # a loss needs no power to be one
        (
            40,
            16,
            400,
            "cannot tell",
        ),  # significant, but so few items cannot be trusted with a gain of 3 points
        (5, 5, 4000, "equivalent"),
        (30, 20, 200, "cannot tell"),
    ],
)
@pytest.mark.parametrize("num_suites", [1, 2])
def test_the_word_over_all_suites(won: int, lost: int, num_items: int, word: str, num_suites: int) -> None:
    """Of one suite by its own test, of two halves pooled."""
    part = pairs_with(won // num_suites, lost // num_suites, num_items // num_suites)
    whole = together({str(i): part for i in range(num_suites)}, None, 0.05)
    verdict = judge_together(whole, DEFAULT.overall)
    assert verdict.word == word
    assert (verdict.needs_items is not None) is (word == "cannot tell")


def test_items_that_are_said_to_be_needed_are() -> None:
    """Power at that many items is what was asked: of one suite, of several, and against a loss."""
    small = pairs_with(6, 4, 50)
    needed = pooled_items(together({"one": small, "two": small}, None, 0.05).pooled, 100, 0.03)
    alone = together({"one": small}, None, 0.05).items_to_see(0.03, 0.8)
    assert needed is not None
    assert alone is not None
    grown = pairs_with(round(0.06 * needed), round(0.04 * needed), needed // 2)
    larger = together({"one": grown, "two": grown}, None, 0.05)
    assert pooled_power_at(larger.pooled, 0.03) == pytest.approx(0.8, abs=0.02)
    assert power_at(pairs_with(round(0.12 * alone), round(0.08 * alone), alone), 0.03) == pytest.approx(
        0.8, abs=0.02
    )


def test_items_against_a_loss_rule_it_out_four_times_of_five() -> None:
    seen = pairs_with(60, 60, 1000)  # nothing gained: discordance 0.12
    needed = items_for_no_worse(seen, 0.02)
    assert needed is not None
    generator = np.random.default_rng(5)
    drawn = generator.multinomial(needed, [0.06, 0.06, 0.88], 1000).tolist()
    ruled_out = [no_worse(pairs_with(won, lost, needed), 0.02).p_value <= 0.025 for won, lost, _ in drawn]
    assert np.mean(ruled_out) == pytest.approx(0.8, abs=0.04)


def compared(tmp_path: Path, contract: ContractSection, *candidates: list[float | None]) -> Comparison:
    before, _ = two_models(400, 0.5, 0.5)
    baseline = evaluation_of(tmp_path / "base", {"sums": records_with(before)})
    found = [
        evaluation_of(tmp_path / f"candidate-{i}", {"sums": records_with(one)})
        for i, one in enumerate(candidates)
    ]
    return decide(contract, baseline, found)


def test_failed_items_count_as_nothing_and_are_told(tmp_path: Path) -> None:
    scores: list[float | None] = list(two_models(400, 0.5, 0.6)[1])
    scores[:12] = [None] * 12
    (decision,) = compared(tmp_path, DEFAULT, scores).decisions
    (suite,) = decision.suites
    assert suite.comparison.num_failed == (0, 12)
    assert suite.comparison.pairs.candidate[:12].tolist() == [0.0] * 12
    gate = next(one for one in decision.gates if one.name == "sums: items without a score")
    assert (gate.status, gate.value) == ("failed", 0.03)
    told = "Suite sums: 12 items of the candidate without a score, counted as 0: 12 × log likelihood is nan."
    assert told in decision.notes


def test_a_baseline_that_fails_does_not_make_a_candidate_good(tmp_path: Path) -> None:
    before, after = two_models(400, 0.5, 0.5)
    broken: list[float | None] = [None if i < 40 else one for i, one in enumerate(before)]
    baseline = evaluation_of(tmp_path / "base", {"sums": records_with(broken)})
    candidate = evaluation_of(tmp_path / "candidate", {"sums": records_with(after)})
    (decision,) = decide(DEFAULT, baseline, [candidate]).decisions
    assert not decision.promoted
    assert any(one.name == "sums: items without a score" and not one.passed for one in decision.gates)


def test_nan_scores_count_as_failed(tmp_path: Path) -> None:
    scores: list[float | None] = list(two_models(400, 0.5, 0.6)[1])
    scores[0] = float("nan")
    (decision,) = compared(tmp_path, DEFAULT, scores).decisions
    assert decision.suites[0].comparison.num_failed == (0, 1)
    assert "the score is no number" in " ".join(decision.notes)


def test_several_candidates_are_ranked_and_corrected(tmp_path: Path) -> None:
    much, alike, little = (two_models(400, 0.5, rate)[1] for rate in (0.8, 0.79, 0.5))
    found = compared(tmp_path, DEFAULT, little, alike, much)
    assert [one.candidate.name for one in found.decisions] == ["candidate-2", "candidate-1", "candidate-0"]
    assert [one.place for one in found.ranking] == [1, 2, 3]
    assert found.ranking[0].like == ("candidate-1",)
    assert found.ranking[2].like == ()
    assert found.chosen is found.decisions[0]
    gate = next(one for one in found.decisions[0].gates if one.name == "several candidates")
    assert gate.passed
    assert "holm over 3 candidates" in gate.rule


@pytest.mark.slow
def test_the_luckiest_of_many_is_held_to_more(tmp_path: Path) -> None:
    """Alone p = 0.02; with four that gain nothing, Holm makes 0.1 of it."""
    bare = ContractSection(
        contract="bare",
        suites=[SuiteRules(suite="*", min_gain=None, max_loss=None)],
        overall=OverallSection(min_gain=0.0, min_power=None),
    )
    before, _ = two_models(400, 0.5, 0.5)
    wrong = [i for i, one in enumerate(before) if not one]
    right = [i for i, one in enumerate(before) if one]

    def changed(num_won: int, num_lost: int, start: int) -> list[float | None]:
        scores: list[float | None] = list(before)
        for i in wrong[start : start + num_won]:
            scores[i] = 1.0
        for i in right[start : start + num_lost]:
            scores[i] = 0.0
        return scores

    lucky = changed(20, 8, 0)
    (alone,) = compared(tmp_path / "alone", bare, lucky).decisions
    assert alone.promoted
    many = compared(tmp_path / "many", bare, lucky, *(changed(10, 10, 20 * i) for i in range(1, 5)))
    assert many.chosen is None
    (held,) = [one for one in many.decisions[0].gates if not one.passed]
    assert held.name == "several candidates"


def test_with_every_gate_a_false_promotion_is_rare() -> None:
    """The whole contract at nothing but significance, equal models: at most the level, and about half of it."""
    generator = np.random.default_rng(11)
    bare = ContractSection(
        contract="bare",
        suites=[SuiteRules(suite="*", min_gain=None, max_loss=None)],
        overall=OverallSection(min_gain=0.0, min_power=None),
    )
    promoted = 0
    for _ in range(300):
        suites = {
            name: pairs_with(*generator.multinomial(200, [0.1, 0.1, 0.8])[:2], 200) for name in ("a", "b")
        }
        whole = together(suites, None, 0.05)
        promoted += whole.pooled.gain > 0 and whole.pooled.test.p_value <= 0.05
        if whole.pooled.gain > 0 and whole.pooled.test.p_value <= 0.05:
            assert all(one.passed for one in gates(bare, **suites).values())
    assert promoted <= 15

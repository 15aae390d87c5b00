"""Unlike conditions are refused, and each difference is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluations import SETTINGS, evaluation_of, records_with

from raytrain.errors import ConfigError, DataError, RefusedError
from raytrain.evaluation.baseline import freeze
from raytrain.evaluation.decision.contract import ConditionsSection, default_contract
from raytrain.evaluation.decision.decide import Comparison, decide
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole

SUITES = {"sums": records_with([1.0, 0.0] * 20), "words": records_with([0.0, 1.0] * 20)}
CHANGED = [replace(SUITES["sums"][3], item_digest="sha256:other"), *SUITES["sums"]]


@pytest.fixture
def baseline(tmp_path: Path) -> Evaluation:
    return evaluation_of(tmp_path / "base", SUITES)


@pytest.fixture
def compared(tmp_path: Path, baseline: Evaluation) -> Callable[..., Comparison]:
    """The baseline against a candidate of which something is another."""

    def found(
        suites: Any = SUITES, *, allow: list[str] | None = None, common_items: bool = False, **different: Any
    ) -> Comparison:
        candidate = evaluation_of(tmp_path / "candidate", suites, **different)
        asked = default_contract().model_copy(update={"conditions": ConditionsSection(allow=allow or [])})
        return decide(asked, baseline, [candidate], common_items=common_items)

    return found


@pytest.mark.parametrize(
    ("different", "told"),
    [
        ({"template": "sha256:two"}, "template: one against two"),
        ({"template": None}, "template: one against none"),
        ({"settings": {**SETTINGS, "dtype": "bfloat16"}}, "dtype: float32 against bfloat16"),
        ({"settings": {"dtype": "float32"}}, "batch_size: 8 against not set"),
        ({"settings": {**SETTINGS, "top_k": 4}}, "top_k: not set against 4"),
        ({"changed": {"sums": {"digest": "sha256:abc"}}}, r"suite sums, digest: \w+ against abc"),
        ({"changed": {"sums": {"version": "2"}}}, "suite sums, version: 1 against 2"),
        ({"changed": {"sums": {"mode": "completion"}}}, "suite sums, mode: chat against completion"),
        ({"suites": {"sums": SUITES["sums"]}}, "suite words: evaluated against not evaluated"),
        (
            {"suites": {**SUITES, "sums": SUITES["sums"][:-3]}},
            r"suite sums, items: all against 3 missing \(37, 38, 39\)",
        ),
        (
            {"suites": {**SUITES, "sums": records_with([1.0] * 48)}},
            r"8 extra \(40, 41, 42, 43, 44, …\)",
        ),
        (
            {"suites": {**SUITES, "sums": [CHANGED[0], *SUITES["sums"][:3], *SUITES["sums"][4:]]}},
            r"suite sums, items: all against 1 changed \(3\)",
        ),
    ],
)
def test_every_difference_is_named(
    compared: Callable[..., Comparison], different: dict[str, Any], told: str
) -> None:
    with pytest.raises(RefusedError, match=told) as caught:
        compared(**different)
    assert caught.value.exit_code == 5


def test_all_differences_are_named_at_once(compared: Callable[..., Comparison]) -> None:
    with pytest.raises(RefusedError) as caught:
        compared(template=None, settings={"dtype": "bfloat16", "batch_size": 4})
    assert caught.value.what.endswith("3 things differ")
    for name in ("template", "dtype", "batch_size"):
        assert name in caught.value.why
        assert name in caught.value.fix


def test_what_the_contract_allows_is_said(compared: Callable[..., Comparison]) -> None:
    found = compared(template=None, settings={**SETTINGS, "batch_size": 4}, allow=["template", "batch_size"])
    (decision,) = found.decisions
    assert [one.name for one in decision.differences] == ["template", "batch_size"]
    assert "Not alike, and allowed by the contract: batch_size: 8 against 4." in decision.notes


@pytest.mark.parametrize(
    ("word", "told"),
    [("templates", "did you mean `template`"), ("dtpye", "did you mean `dtype`"), ("zzz", "take it out")],
)
def test_a_word_that_allows_nothing_is_a_slip_of_the_contract(
    compared: Callable[..., Comparison], word: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"names `{word}`") as caught:
        compared(allow=["template", word])
    assert told in caught.value.fix


def test_a_setting_that_one_of_them_has_may_be_allowed(compared: Callable[..., Comparison]) -> None:
    (decision,) = compared(settings={**SETTINGS, "top_k": 4}, allow=["top_k", "batch_size"]).decisions
    assert [one.name for one in decision.differences] == ["top_k"]


def test_a_contract_that_allows_another_dtype_serves_endpoints_too(tmp_path: Path) -> None:
    asked = default_contract().model_copy(update={"conditions": ConditionsSection(allow=["dtype"])})
    left, right = (evaluation_of(tmp_path / name, SUITES, settings={}) for name in ("a", "b"))
    assert decide(asked, left, [right]).decisions[0].differences == ()


def test_what_a_model_is_called_is_no_condition(tmp_path: Path) -> None:
    """Of an endpoint nothing but its address and its model's name is known."""
    left, right = (
        evaluation_of(tmp_path / str(i), SUITES, reference=name, template=None, settings={})
        for i, name in enumerate(("http://one:8000/v1", "http://two:8000/v1"))
    )
    assert decide(default_contract(), left, [right]).decisions[0].differences == ()


def test_a_subset_is_compared_only_on_request_and_said_aloud(compared: Callable[..., Comparison]) -> None:
    subset = {**SUITES, "sums": SUITES["sums"][:30]}
    with pytest.raises(RefusedError, match="--common-items"):
        compared(subset)
    (decision,) = compared(subset, common_items=True).decisions
    assert [len(one.comparison.pairs) for one in decision.suites] == [30, 40]
    assert "only 30 common items are compared, of 40 of the baseline and 30 of" in " ".join(decision.notes)


def test_nothing_in_common_is_no_comparison(compared: Callable[..., Comparison]) -> None:
    others = [replace(one, item_id=f"other {one.item_id}") for one in SUITES["sums"]]
    with pytest.raises((RefusedError, DataError), match="sums"):
        compared({**SUITES, "sums": others}, common_items=True)


def test_a_frozen_baseline_against_its_own_evaluation_is_said_to_be_the_same(
    tmp_path: Path, baseline: Evaluation
) -> None:
    frozen = open_evaluation(freeze(baseline, Location.parse(str(tmp_path / "frozen"))).location)
    (decision,) = decide(default_contract(), frozen, [baseline]).decisions
    assert "Both are the same evaluation: nothing can differ." in decision.notes
    assert decision.verdict.word == "cannot tell", "80 items that never differ leave more than a point open"
    assert not decision.promoted


def test_a_template_counts_only_where_one_is_used(tmp_path: Path) -> None:
    plain = {"sums": {"mode": "completion"}, "words": {"mode": "completion"}}
    one = evaluation_of(tmp_path / "a", SUITES, changed=plain)
    other = evaluation_of(tmp_path / "b", SUITES, changed=plain, template=None)
    assert decide(default_contract(), one, [other]).decisions[0].differences == ()

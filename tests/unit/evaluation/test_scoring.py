"""Scores against other people's programs where there are some, and against tables of outputs."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from raytrain.errors import ConfigError
from raytrain.evaluation.scoring.matches import normalised_words
from raytrain.evaluation.scoring.numbers import final_number
from raytrain.evaluation.scoring.registry import Score, build_scorer, scorer_names
from raytrain.evaluation.scoring.structure import first_value, same

words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "dog"]), max_size=9).map(" ".join)


def score(name: str, output: str, *references: str, **options: Any) -> float:
    return build_scorer(name, options)(output, references).value


@pytest.mark.parametrize(
    ("name", "output", "reference", "value"),
    [
        ("exact_match", " yes\n", "yes", 1.0),
        ("exact_match", "Yes", "yes", 0.0),
        ("exact_match", "", "", 1.0),
        ("normalised_match", "The U.S. can't!", "us cant", 1.0),
        ("normalised_match", "an apple", "Apple.", 1.0),
        ("normalised_match", "ﬁne １２", "fine 12", 1.0),
        ("normalised_match", "„Haus“", "haus", 1.0),
        ("normalised_match", "house", "mouse", 0.0),
        ("f1", "the cat sat", "cat sat down", 0.8),
        ("f1", "", "", 1.0),
        ("f1", "", "cat", 0.0),
        ("f1", "cat cat", "cat", 2 / 3),
        ("rouge_l", "", "cat", 0.0),
        ("rouge_l", "Ein Hund läuft", "ein Hund läuft", 1.0),
        ("json_equal", '{"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1.0}', 1.0),
        ("json_equal", 'Sure:\n```json\n{"a": {"b": 2}}\n```', '{"a":{"b":2}}', 1.0),
        ("json_equal", '{"a": true}', '{"a": 1}', 0.0),
        ("json_equal", '{"a": "1"}', '{"a": 1}', 0.0),
        ("json_equal", '{"a": 1', '{"a": 1}', 0.0),
        ("json_equal", '{"a": 1, "a": 1}', '{"a": 1}', 0.0),
        ("json_equal", "[1, 2]", "[2, 1]", 0.0),
        ("json_equal", "3", "3.0", 1.0),
        ("json_equal", "no", "3", 0.0),
        ("json_equal", "NaN", "3", 0.0),
        ("json_equal", '{"a": 1, "a": {"b": 2}}', '{"b": 2}', 0.0),
        ("json_equal", '{"x": NaN, "y": {"b": 2}}', '{"b": 2}', 0.0),
        ("json_equal", '{"result": {"b": 2}', '{"b": 2}', 0.0),
        ("json_equal", "1e400", "3", 0.0),
        ("json_equal", 'a set {x} and then {"b": 2}', '{"b": 2}', 1.0),
        ("normalised_match", "", "A", 0.0),
        ("normalised_match", "the.", "A", 0.0),
        ("normalised_match", "a", "A", 1.0),
        ("f1", "...", "A", 0.0),
    ],
)
def test_scores(name: str, output: str, reference: str, value: float) -> None:
    assert score(name, output, reference) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so she has 5 - 3 = 2 apples", "2"),
        ("He pays 2*3 = <<2*3=6>>6 dollars.\n#### 6", "6"),
        ("The total is $1,234.50.", "1234.50"),
        ("#### 1,000,000 of 7", "1000000"),
        ("\\boxed{42} after 3 steps", "42"),
        ("The answer is: 7. Then 9 more.", "7"),
        ("the answer to question 3 is unknown; 4", "4"),
        ("-5 degrees", "-5"),
        ("\u22125", "-5"),
        ("it is 3/4", "0.75"),
        ("1.5e3", "1500"),
        (".5", "0.5"),
        ("version v2.5 has 12th place", "12"),
        ("7.", "7"),
        ("12 apples ####", "12"),
        ("100%", "100"),
        ("Result:\n- 5 apples", "5"),
        ("7 - 3", "3"),
        ("-$5", "-5"),
        ("10\u202f000", "10000"),
        ("\\boxed{\\frac{3}{4}}", "0.75"),
    ],
)
def test_the_number_of_an_answer(text: str, number: str) -> None:
    assert final_number(text) == Decimal(number)


def test_numbers() -> None:
    assert final_number("none at all") is None
    assert score("number", "none", "#### 5") == 0.0
    assert score("number", "It is 5.0", "so\n#### 5") == 1.0
    assert score("number", "0.333", "1/3") == 0.0
    assert score("number", "0.333", "1/3", tolerance=0.01) == 1.0
    assert score("number", "7", "5", "7") == 1.0
    for references in (["no number"], []):
        with pytest.raises(ValueError, match="no number stands in"):
            build_scorer("number")("7", references)
    with pytest.raises(ConfigError, match="cannot be used with"):
        build_scorer("number", {"tolerance": "abc"})


@pytest.mark.parametrize("reference", ["no", "NaN", "1e500", '{"a": 1'])
def test_a_reference_without_json_is_no_wrong_answer(reference: str) -> None:
    with pytest.raises(ValueError, match="no JSON stands in"):
        build_scorer("json_equal")("3", [reference])


@given(output=words, reference=words)
def test_rouge_l_is_googles(output: str, reference: str) -> None:
    theirs = RougeScorer(["rougeL"]).score(reference, output)["rougeL"].fmeasure
    assert score("rouge_l", output, reference) == pytest.approx(theirs, abs=1e-12)


@given(output=words, reference=words)
def test_f1_lies_between_nothing_and_the_same(output: str, reference: str) -> None:
    value = score("f1", output, reference)
    assert 0.0 <= value <= 1.0
    assert score("f1", reference, output) == pytest.approx(value)
    assert (value == 1.0) == (sorted(normalised_words(output)) == sorted(normalised_words(reference)))


def test_chrf() -> None:
    assert score("chrf", "the cat", "the cat") == pytest.approx(1.0)
    assert 0.3 < score("chrf", "the cat sat", "the cat slept") < 0.9
    with_words = score("chrf", "the cat sat", "the cat slept", word_order=2)
    assert 0.3 < with_words < 0.9
    assert with_words != score("chrf", "the cat sat", "the cat slept")
    assert score("chrf", "", "the cat") == 0.0
    assert score("chrf", "the cat", "a dog", "the cat") == pytest.approx(1.0), "the best reference counts"


@pytest.mark.slow
def test_patterns() -> None:
    assert score("pattern", "Answer: (B) because", "B", pattern=r"Answer: \((\w)\)") == 1.0
    assert score("pattern", "B", "B", pattern=r"Answer: \((\w)\)") == 0.0
    assert score("pattern", "x=1", "x=1", pattern=r"x=\d", group=0) == 1.0
    with pytest.raises(TimeoutError):
        build_scorer("pattern", {"pattern": r"(a|aa)+$"})("a" * 5000 + "b", ["a"])


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_comes_back_however_it_is_written(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=2, sort_keys=True)):
        found, is_json = first_value(text)
        assert is_json and same(found, value)
        if isinstance(value, dict | list):
            assert same(first_value(f"Here you are: {text} Bye.")[0], value)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["[" * 100_000, "{" * 100_000, '{"a":' * 5_000])
def test_brackets_alone_are_no_json_and_take_no_time(output: str) -> None:
    assert score("json_equal", output, "[]") == 0.0


@pytest.mark.parametrize(
    "name", ["exact_match", "normalised_match", "f1", "rouge_l", "chrf", "number", "json_equal"]
)
def test_garbage_gets_a_score(name: str) -> None:
    for output in ("", "\x00\x07", "\ud800", "🙂" * 50, "9" * 400, "1e999999", "%s {} [", "a\u202eb"):
        assert 0.0 <= score(name, output, "5") <= 1.0
        if name not in ("number", "json_equal"):
            assert score(name, output) == 0.0, "without a reference nothing is right"


def test_names_and_options() -> None:
    assert set(scorer_names()) >= {
        "exact_match", "normalised_match", "pattern", "number", "f1", "rouge_l", "chrf", "json_equal",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="no scorer `rogue_l`") as caught:
        build_scorer("rogue_l")
    assert caught.value.fix == "did you mean `rouge_l`?"
    with pytest.raises(ConfigError, match="number knows no `tolerence`") as caught:
        build_scorer("number", {"tolerence": 1})
    assert caught.value.fix == "did you mean `tolerance`?"
    with pytest.raises(ConfigError, match="exact_match knows no `tolerance`"):
        build_scorer("exact_match", {"tolerance": 1})
    with pytest.raises(ConfigError, match="cannot be used with"):
        build_scorer("pattern", {"pattern": "(", "group": 1})
    with pytest.raises(ConfigError, match="cannot be used with"):
        build_scorer("pattern", {"pattern": "a", "group": 1})


def test_a_scorer_of_ones_own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scorers.py").write_text(
        "from raytrain.evaluation.scoring.registry import Score\n\n\n"
        "def shortness(output, references, *, most=10):\n    return Score(max(0.0, 1 - len(output) / most))\n\n\n"
        "def number(output, references):\n    return 1.0\n\n\n"
        "def alone(output):\n    return Score(1.0)\n\n\n"
        "def particular(output, references):\n    return Score(1 / len(output))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build_scorer("my_scorers:shortness", {"most": 4})("abc", []) == Score(0.25)
    with pytest.raises(ConfigError, match="gives a float"):
        build_scorer("my_scorers:number")
    with pytest.raises(ConfigError, match="cannot be used with no options"):
        build_scorer("my_scorers:alone")
    assert build_scorer("my_scorers:particular")("ab", []) == Score(0.5), (
        "an empty output is no reason to refuse it"
    )
    with pytest.raises(ConfigError, match="cannot be imported"):
        build_scorer("my_scorers:other")

"""Variants ask the same: answers are computed again, sizes kept, programs run, and the drop is paired."""

from __future__ import annotations

import ast
import json
import random
import re
from collections import Counter
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytrain.errors import ConfigError, DataError
from raytrain.evaluation.items import load_items
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.scoring.numbers import number
from raytrain.evaluation.suite import SuiteSection
from raytrain.evaluation.variants.annotated import perturbed_rows
from raytrain.evaluation.variants.arithmetic import compiled, num_digits, run_chain
from raytrain.evaluation.variants.choices import FRAMES, choice_rows, letters_of, paraphrased
from raytrain.evaluation.variants.code import code_rows, vary
from raytrain.evaluation.variants.code_tests import run_in_sandbox
from raytrain.evaluation.variants.fresh import fresh_problems
from raytrain.evaluation.variants.names import ALL
from raytrain.evaluation.variants.robustness import robustness, robustness_of_records
from raytrain.evaluation.variants.word_problem_templates import TEMPLATES
from raytrain.evaluation.variants.word_problems import CHANGES, Change, draw, originals, perturb, variants
from raytrain.evaluation.variants.written_numbers import has_threshold, numbers_of

ANNOTATION = re.compile(r"<<([^=]+)=(\d+)>>")
RUN = partial(run_in_sandbox, allow_weaker=True)


def chain_of(answer: str) -> list[tuple[str, int]]:
    return [(left, int(right)) for left, right in ANNOTATION.findall(answer)]


def assert_chain_holds(answer: str) -> None:
    chain = chain_of(answer)
    assert chain
    for left, right in chain:
        assert compiled(left)({}) == right > 0
    assert answer.endswith(f"#### {chain[-1][1]}")


# word problems


def test_there_are_enough_templates_and_each_uses_what_it_names() -> None:
    assert len(TEMPLATES) >= 20 and len({one.id for one in TEMPLATES}) == len(TEMPLATES)
    for template in TEMPLATES:
        text = " ".join([*template.facts, template.question])
        used = {word for _, expression in template.steps for word in re.findall(r"[a-z]+", expression)}
        assert set(template.variables) <= used, (
            f"{template.id}: a number that counts for nothing is a distractor"
        )
        assert all(f"{{{name}}}" in text for name in template.variables)
        assert "{d}" in template.distractor and "{d}" not in text
        assert not re.search(
            r"\b(?:he|she|his|her|him|it|they)\b", " ".join(template.facts), re.IGNORECASE
        ), template.id


CHANGING = r"\b(?:gives|fells|get off|get on|takes out|saves|cuts?|join|leave|more)\b"
STATE = r"\b(?:has|holds|have|are|is|was|leaves)\b"
TIME = r"^(?:At first|So far|In [A-Z]|On [A-Z])|\b(?:at first|starts)\b"


def test_what_a_later_fact_changes_is_told_with_its_time() -> None:
    """After the gift "Cynthia has 99 books" would be what she has then; the sentences stand in any order."""
    untimed = {
        template.id: fact
        for template in TEMPLATES
        if any(re.search(CHANGING, fact) for fact in template.facts)
        for fact in template.facts
        if re.search(STATE, fact) and not re.search(f"{TIME}|{CHANGING}", fact)
    }
    # What a novel or a bicycle is does not change.
    assert untimed.keys() <= {"pages"}, untimed


@pytest.mark.slow
@given(
    st.sampled_from(TEMPLATES),
    st.integers(0, 10**6),
    st.sets(st.sampled_from(CHANGES), min_size=1),
    st.integers(0, 9),
)
@settings(max_examples=200, deadline=None)
def test_a_variant_keeps_sizes_and_computes_its_answer(
    template: Any, seed: int, changes: set[Change], number_of: int
) -> None:
    problem = draw(template, seed, number_of)
    changed = perturb(problem, changes, random.Random(seed))
    assert_chain_holds(problem.answer)
    assert_chain_holds(changed.answer)
    for before, after in ((problem.values, changed.values), (problem.results, changed.results)):
        assert [num_digits(before[key]) for key in before] == [num_digits(after[key]) for key in before]
    assert (changed.values != problem.values) == ("numbers" in changes)
    assert ({changed.name, changed.other} & {problem.name, problem.other} == set()) == ("names" in changes)
    assert (changed.order != problem.order) == ("order" in changes)
    assert (changed.distractor is not None) == ("distractor" in changes)
    if "numbers" not in changes:
        assert changed.target == problem.target
    written = Counter(int(one) for one in re.findall(r"\d+", changed.question))
    assert written >= Counter(changed.values.values())
    assert written.total() == len(changed.values) + ("distractor" in changes)
    assert "{" not in changed.question


def test_seeds_decide_everything() -> None:
    assert list(variants(7, 30)) == list(variants(7, 30))
    assert list(variants(7, 30)) != list(variants(8, 30))
    assert list(originals(7, 30))[:10] == list(originals(7, 10))


@pytest.mark.slow
def test_variants_pair_with_their_originals_and_answers_are_mostly_new() -> None:
    first = {row["id"]: row for row in originals(3, 240)}
    second = list(variants(3, 240, per_original=2))
    assert len(second) == 480 and len({row["id"] for row in second}) == 480
    assert all(row["original_id"] in first for row in second)
    kept = sum(row["target"] == first[row["original_id"]]["target"] for row in second)
    assert kept <= 0.02 * len(second), "an answer learned by heart is wrong"
    assert all(number(row["answer"], [str(row["target"])]).value == 1.0 for row in second)


def test_rows_are_a_suites_rows(tmp_path: Path) -> None:
    file = tmp_path / "variants.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in variants(0, 24)))
    suite = load_items(
        SuiteSection.model_validate(
            {
                "suite": "problems",
                "kind": "generation",
                "items": {"source": {"path": str(file)}, "id": "id", "group": "original_id"},
                "prompt": {"mode": "chat", "template": "{question}"},
                "answer": "{answer}",
                "scorer": {"name": "number"},
            }
        )
    )
    assert len(suite.items) == 24 and suite.items[0].group == "buns-0"


def test_fresh_problems_belong_to_their_date() -> None:
    today, tomorrow = list(fresh_problems("2026-03-01", 24)), list(fresh_problems("2026-03-02", 24))
    assert today == list(fresh_problems("2026-03-01", 24))
    assert not {row["question"] for row in today} & {row["question"] for row in tomorrow}
    assert today[0]["id"].endswith("2026-03-01") and today[0]["seed"] == "2026-03-01"
    with pytest.raises(ConfigError, match="is no date"):
        list(fresh_problems("March", 1))


# annotated rows

QUESTION = "Nora sold 48 caps in April, and then she sold half as many caps in May. How many caps did she sell in all?"
ANSWER = "In May she sold 48/2 = <<48/2=24>>24 caps.\nIn all she sold 48+24 = <<48+24=72>>72 caps.\n#### 72"


def only(rows: Any) -> dict[str, Any]:
    (row,) = rows
    found: dict[str, Any] = row
    return found


def test_an_annotated_row_gets_other_numbers_and_its_answer_anew() -> None:
    for seed in range(40):
        row = only(
            perturbed_rows([("n", QUESTION, ANSWER)], seed, changes=["numbers", "names", "distractor"])
        )
        assert_chain_holds(row["answer"])
        caps = int(re.findall(r"sold (\d+) caps", row["question"])[0])
        assert caps != 48 and 10 <= caps <= 99 and row["target"] == caps * 3 // 2
        assert [num_digits(value) for _, value in chain_of(row["answer"])] == [2, 2] or row["target"] >= 100
        assert "Nora" not in row["question"] and any(name in row["question"] for name in ALL)
        assert row["question"].endswith("How many caps did she sell in all?")


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Ida has 5 pens.", "#### 5", "no annotations"),
        ("Ida has 5 pens and 4 pins.", "<<5+4=10>>\n#### 10", "an annotation is no arithmetic, or wrong"),
        ("Ida has 5 pens and 4 pins.", "<<5+x=9>>\n#### 9", "an annotation is no arithmetic, or wrong"),
        ("Ida has 5 pens and 4 pins.", "<<5+4=9>>\n#### 18", "the last annotation is not the answer"),
        ("Ida cuts 5 pens into 4.", "<<5/4=1.25>>\n<<1.25*4=5>>\n#### 5", "a step is no positive integer"),
        ("Ida gets 9 pens, and 4 more than 30.", "<<9*4=36>>\n#### 36", "a number decides a case or is rounded"),
        ("Ida has 2 pens, twice those of Ben.", "<<2*2=4>>\n#### 4", "a number of the chain may be several things"),
        ("Ida has 5 pens and 4 pins, 9 in a box.", "<<5+4=9>>\n<<9*9=81>>\n#### 81",
         "a number of the chain may be several things"),
        ("Ida has 5 pens and some pins.", "<<5+4=9>>\n#### 9", "a number of the chain comes from nowhere"),
        ("Ida has 1/2 of a pie.", "<<2*1=2>>\n#### 2", "no number can change"),
        ("Boxes of 2, 3, 4, 5, 6, 7, 8 and 9 pens.", "<<2+3+4+5+6+7+8+9=44>>\n#### 44",
         "no other numbers were found"),
    ],
)  # fmt: skip
def test_a_row_that_is_not_certain_is_left_out_and_counted(question: str, answer: str, reason: str) -> None:
    left_out: Counter[Any] = Counter()
    found = list(perturbed_rows([("n", question, answer)], 0, left_out=left_out))
    assert found == [] and left_out == {reason: 1}


@given(st.integers(2, 99), st.integers(2, 99), st.integers(2, 9), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_chains_of_any_numbers_are_right_or_left_out(a: int, b: int, c: int, seed: int) -> None:
    question = f"There are {a} red and {b} blue caps in each of {c} chests. How many caps are there?"
    answer = f"<<{a}+{b}={a + b}>>\n<<{a + b}*{c}={(a + b) * c}>>\n#### {(a + b) * c}"
    for row in perturbed_rows([("n", question, answer)], seed):
        found = [int(one) for one in re.findall(r"\d+", row["question"])]
        assert row["target"] == (found[0] + found[1]) * found[2]
        assert [num_digits(one) for one in found] == [num_digits(one) for one in (a, b, c)]
        assert num_digits(row["target"]) == num_digits((a + b) * c)


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("He has 12 pens and 1,200 pins", [12, 1200]),
        ("3/4 of 20 at 5:30 for $2.50 and 7th of May", [20]),
        ("a 40-page book, 5 days a week, 10-20 pages", [40]),
        ("1 pen, 20% of 100%", [20]),
        ("2 dozen eggs and 3 thousand pins for 4 people", [4]),
    ],
)
def test_which_numbers_may_change(text: str, free: list[int]) -> None:
    assert [one.value for one in numbers_of(text) if one.is_free] == free


def test_thresholds_are_seen() -> None:
    assert (
        has_threshold("for every hour over 40")
        and has_threshold("rounded to tens")
        and has_threshold("more than 5")
    )
    assert not has_threshold("she has 5 more than Ben")


def test_arithmetic_is_exact_and_only_that() -> None:
    assert compiled("a * (b - 2) / 4")({"a": Fraction(3), "b": Fraction(4)}) == Fraction(3, 2)
    assert compiled(".1 + .2")({}) == Fraction(3, 10)
    for bad in ("a ** 2", "f(1)", "1 +", "-1", "True", "'a'", "a.b"):
        with pytest.raises(ValueError):
            compiled(bad)
    steps = [("r0", compiled("a / b")), ("r1", compiled("r0 - 5"))]
    assert run_chain(steps, {"a": Fraction(12), "b": Fraction(2)}) == {"r0": 6, "r1": 1}
    for values in ((12, 5), (10, 2), (5, 0)):
        assert run_chain(steps, {"a": Fraction(values[0]), "b": Fraction(values[1])}) is None


# multiple choice


@given(st.lists(st.text("abcdefg", min_size=2), min_size=2, max_size=6, unique=True), st.data())
@settings(max_examples=100, deadline=None)
def test_the_right_choice_stays_right(choices: list[str], data: st.DataObject) -> None:
    right = data.draw(st.integers(0, len(choices) - 1))
    row = only(choice_rows([("q", "Which of the following is it?", choices, right)], 0))
    assert row["choices"] != choices and sorted(row["choices"]) == sorted(choices)
    assert row["choices"][row["answer"]] == choices[right]
    assert f"\n{row['letter']} {choices[right]}" in row["lettered"]
    assert row["question"] != "Which of the following is it?" and row["question"] in row["lettered"]


def test_choices_that_speak_of_others_stay_or_go() -> None:
    left_out: Counter[Any] = Counter()
    row = only(choice_rows([("a", "Why?", ["x", "y", "z", "None of the above"], 3)], 1, left_out=left_out))
    assert row["answer"] == 3 and row["choices"][3] == "None of the above"
    assert list(choice_rows([("b", "Why?", ["x", "y", "Both A and B", "z"], 0)], 1, left_out=left_out)) == []
    assert list(choice_rows([("c", "Why?", ["x", "all of the above"], 0)], 1, left_out=left_out)) == []
    assert left_out == {"a choice speaks of other choices by letter": 1, "there is one order only": 1}


def test_stems_change_by_rule_and_letters_by_style() -> None:
    generator = random.Random(0)
    assert paraphrased("Which of the following is approximately round?", generator).endswith(
        ("about round?", "roughly round?")
    )
    assert paraphrased("Why?", generator) in [frame.format(stem="Why?") for frame in FRAMES]
    assert [letters_of(5, style)[4] for style in range(5)] == ["E.", "(e)", "5)", "T:", "v."]
    for style in range(5):
        assert len(set(letters_of(60, style))) == 60 and all(one.isascii() for one in letters_of(60, style))
    assert letters_of(12, 3)[-2:] == ["Z:", "AA:"] and letters_of(49, 4)[-1] == "xlix."
    many = [("q", "Why?", [f"c{i}" for i in range(12)], 0)]
    assert {len(only(choice_rows(many, seed))["choices"]) for seed in range(20)} == {12}
    row = only(choice_rows([("q", "Why?", ["x", "y"], 0)], 0, changes=["shuffle"]))
    assert row["question"] == "Why?" and row["lettered"] == "Why?\nA. y\nB. x" and row["letter"] == "B."


# code

CODE = '''
import math

LIMIT = 10
STEP = 3


def area(width, height=2):
    """Of a rectangle."""
    total = 0
    start = 1
    for row in range(height):
        total += width
    squares = [row * row for row in range(width)]
    try:
        extra = squares[99]
    except IndexError as error:
        extra = len(str(error)) * 0
    return total + extra * start


def perimeter(width, height):
    def double(value):
        result = value * 2
        return result

    result = double(width) + double(height)
    return result


def deep(items):
    count = 0

    def visit(one):
        nonlocal count
        count += 1
        for child in one:
            visit(child)

    visit(items)
    return count


class Box:
    size = 4

    def volume(self):
        size = self.size
        return size**3
'''
TESTS = (
    "assert area(width=3, height=4) == 12 and perimeter(1, 2) == 6 and Box().volume() == 64\n"
    "assert LIMIT - STEP == 7 and deep([[], [[]]]) == 4"
)


@pytest.mark.parametrize("seed", range(25))
def test_code_variants_pass_what_the_original_passes(seed: int) -> None:
    program, made = vary(CODE, random.Random(seed))
    assert made == ["rename", "reorder", "dead_code"]
    exec(compile(f"{program}\n{TESTS}", "variant", "exec"), {})
    ours, theirs = ast.parse(CODE), ast.parse(program)
    assert [one.name for one in ours.body if isinstance(one, ast.FunctionDef)] != [] and ast.dump(
        ours
    ) != ast.dump(theirs)
    assert "total = 0" not in program and "width" in program and "count" in program


@pytest.mark.slow
def test_variants_are_run_and_what_fails_is_counted() -> None:
    left_out: Counter[Any] = Counter()
    rows = [
        ("good", CODE, TESTS),
        ("wrong", CODE, "assert area(1, 1) == 9"),
        ("torn", "def f(:", ""),
        ("bare", "x = 1", "assert x == 1"),
        ("looks", "def f():\n    a = 1\n    b = 2\n    return sorted(locals())", "assert f() == ['a', 'b']"),
    ]
    found = list(code_rows(rows, 0, RUN, left_out=left_out))
    assert [row["id"] for row in found] == ["good-v0"] and found[0]["original_id"] == "good"
    assert left_out == {
        "the original fails its tests": 1,
        "it is no Python": 1,
        "nothing could be changed": 1,
        "the variant fails its tests": 1,
    }


@pytest.mark.slow
def test_a_run_has_limits() -> None:
    assert RUN("import os", "assert 'SECRET' not in os.environ and os.listdir() == []")
    assert not RUN("while True: pass", "", limit_s=1.0)
    assert not RUN("x = bytearray(3 * 2**30)", "")
    assert not RUN("raise SystemExit(3)", "")


def test_code_that_ends_before_its_tests_passes_none() -> None:
    guarded = "import sys\ndef main(): return 0\nif __name__ == '__main__':\n    sys.exit(main())\n"
    assert RUN(guarded, "assert main() == 0") and not RUN(guarded, "assert main() == 1")
    assert not RUN("import sys\nsys.exit(0)", "assert False")


# robustness


def test_the_drop_is_paired_and_has_its_interval() -> None:
    first = {str(i): float(i % 10 < 8) for i in range(200)}
    second = [(str(i), float(i % 10 < 6)) for i in range(200)]
    found = robustness(first, [*second, ("unknown", 1.0)])
    assert found.drop == pytest.approx(0.2) and found.verdict.word == "worse" and found.num_unpaired == 1
    assert found.verdict.interval.low < -0.2 < found.verdict.interval.high < 0
    assert "a drop of 20.0 points (95 % interval 1" in found.sentence()
    same = robustness(first, list(first.items()))
    assert "a drop of 0.0 points" in same.sentence() and str(same.drop) == "0.0"
    assert same.drop == 0.0 and same.verdict.interval.high > 0
    with pytest.raises(DataError, match="no variant has an original"):
        robustness(first, [("x", 1.0)])


def test_several_variants_of_one_original_are_a_group() -> None:
    first = {str(i): 1.0 for i in range(40)}
    second = [(str(i), float(i % 2)) for i in range(40) for _ in range(3)]
    found = robustness(first, second)
    alone = robustness(
        {f"{i}-{j}": 1.0 for i in range(40) for j in range(3)},
        [(f"{i}-{j}", float(i % 2)) for i in range(40) for j in range(3)],
    )
    assert found.num_originals == 40 and found.num_variants == 120
    assert found.verdict.interval.width > 1.5 * alone.verdict.interval.width


def test_records_pair_by_group() -> None:
    def record(name: str, score: float | None, group: str | None = None) -> ItemRecord:
        return ItemRecord(name, "d", "p", "o", ("r",), score, group=group)

    found = robustness_of_records(
        [record("a", 1.0), record("b", None)], [record("a-v0", 0.0, "a"), record("b-v0", 1.0, "b")]
    )
    assert found.original_score == 0.5 and found.variant_score == 0.5 and found.num_variants == 2

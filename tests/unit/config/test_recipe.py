from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field, model_validator

from raytrain.config.document import parse_document
from raytrain.config.recipe import build, known_keys, load_recipe, nearest
from raytrain.config.section import Section
from raytrain.errors import ConfigError


class Inner(Section):
    LOOKED_FOR: ClassVar[Mapping[str, str]] = {"lr_schedule": "there is one schedule"}

    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    """Peak learning rate."""
    seed: int = 0
    pair: tuple[float, float] = (0.0, 0.0)
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "a"

    @model_validator(mode="after")
    def _check(self) -> Inner:
        if self.seed == 13 and self.learning_rate > 1:
            raise ValueError("seed 13 needs a small learning_rate")
        if self.seed == 14:
            raise ConfigError("seed 14 is taken", why="by another", fix="take 15")
        return self


class Source(Section):
    path: str
    deep: Inner = Inner()


class Outer(Section):
    train: Inner = Inner()
    sources: list[Source] = Field(default_factory=list)
    other: Inner | None = None


def fault(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(Outer, parse_document(text, "r.yaml"))
    return caught.value


def test_unknown_key_names_place_path_and_nearest_key() -> None:
    error = fault("train:\n  seed: 1\n  learning_rat: 2\n")
    assert error.what == "r.yaml:3: train.learning_rat: unknown key"
    assert error.fix == "did you mean `learning_rate`?"


def test_key_in_the_wrong_section_is_sent_home() -> None:
    error = fault("seed: 1\n")
    assert error.what == "r.yaml:1: seed: unknown key"
    assert "`train`" in error.fix


def test_unknown_key_without_a_neighbour_lists_what_is_allowed() -> None:
    assert "learning_rate, name, pair, seed" in fault("train:\n  zzzz: 1\n").fix


def test_wrong_type_and_range_name_what_was_given() -> None:
    error = fault("train:\n  learning_rate: abc\n")
    assert error.what.startswith("r.yaml:2: train.learning_rate:")
    assert "'abc'" in error.what
    assert "greater than 0" in fault("train:\n  learning_rate: -1\n").what


def test_a_key_that_people_look_for_is_answered() -> None:
    assert fault("train:\n  lr_schedule: cosine\n").fix == "there is one schedule"
    assert fault("pair: [1, 2]\n").fix == "`pair` belongs under `train`"


def test_what_why_and_fix_say_three_things() -> None:
    error = fault("train:\n  learning_rate: -1\n")
    assert error.what == "r.yaml:2: train.learning_rate: should be greater than 0 (got -1)"
    assert error.why == "`learning_rate` is: Peak learning rate."
    assert error.fix.startswith("change `train.learning_rate`")
    assert fault("train:\n  seed:\n").what == "r.yaml:2: train.seed: has no value (got None)"
    assert fault("train:\n  name: Ähm\n").what == "r.yaml:2: train.name: does not match ^[a-z]+$ (got 'Ähm')"
    short = fault("train:\n  pair: [1]\n")
    assert (short.what, short.fix) == (
        "r.yaml:2: train.pair: value 2 is missing",
        "give `train.pair` all of its values",
    )


def test_keys_that_do_not_go_together_are_told_with_their_place() -> None:
    error = fault("train:\n  seed: 13\n  learning_rate: 2\n")
    assert error.what == "r.yaml:1: train: seed 13 needs a small learning_rate"
    assert error.why == "the keys are allowed, but not together"
    error = fault("train: {seed: 14}\n")
    assert (error.what, error.why, error.fix) == ("r.yaml:1: seed 14 is taken", "by another", "take 15")


def test_a_section_that_holds_no_keys() -> None:
    error = fault("train: 3\n")
    assert error.what == "r.yaml:1: train: takes keys of its own, indented below it (got 3)"


def test_list_elements_and_optional_sections_are_found() -> None:
    assert fault("sources:\n  - path: a\n  - pth: b\n").what.count("r.yaml:3") == 2, (
        "one fault a line: pth, and no path"
    )
    assert fault("other:\n  sed: 1\n").fix == "did you mean `seed`?"


def test_all_faults_are_told_at_once() -> None:
    error = fault("train:\n  learning_rate: x\n  seed: y\n")
    assert "2 faults" in error.what
    assert "train.learning_rate" in error.what
    assert "train.seed" in error.what


def test_presets_stack_in_order_and_below_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "a.yaml").write_text("train: {seed: 1, learning_rate: 0.5}\n")
    (tmp_path / "presets" / "b.yaml").write_text("train: {seed: 2}\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("extends: [presets/a.yaml, presets/b.yaml]\nother: {seed: 3}\n")
    spec = build(Outer, load_recipe(recipe, ["train.learning_rate=0.25"]))
    assert (spec.train.seed, spec.train.learning_rate, spec.other) == (2, 0.25, Inner(seed=3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends: absent.yaml\n", "no preset"),
        ("extends: 3\n", "takes a path"),
        ("extends: r.yaml\n", "circle"),
    ],
)
def test_bad_extends(tmp_path: Path, text: str, expected: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_recipe(recipe)


def test_known_keys_follow_a_path() -> None:
    assert known_keys(Outer, ("sources", 0)) == {"path", "deep"}
    assert known_keys(Outer, ()) == {"train", "sources", "other"}
    assert nearest("sede", ["seed", "path"]) == "seed"
    assert nearest("qqq", ["seed", "path"]) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["train: &a [*a]\n", "train: &m {seed: *m}\n", "train: " + "[" * 3000 + "]" * 3000]
)
def test_a_bottomless_recipe_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_document(text, "r.yaml")


def test_true_is_no_number() -> None:
    error = fault("train:\n  learning_rate: true\n")
    assert error.what.startswith("r.yaml:2: train.learning_rate: takes no true")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["a suite needs at least suite, kind and items", "jobs/suites/"]),
        ("- a", ["a suite is a mapping", "docs/evaluation-reference.md"]),
        (
            "suit: a\nkind: generation\n",
            ["faults in the suite", "suit: did you mean `suite`?", "suite: add `suite` at the top"],
        ),
        ("extends: other.yaml", ["relative to the suite that names them"]),
    ],
)
def test_what_is_no_recipe_is_not_called_one(tmp_path: Path, text: str, words: list[str]) -> None:
    from raytrain.evaluation.suite import load_suite

    place = tmp_path / "suite.yaml"
    place.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_suite(place)
    told = str(caught.value).replace(str(tmp_path), "")
    assert [one for one in words if one not in told] == [], told
    assert "recipe" not in told and "docs/reference.md" not in told

"""Versions rank as semver.org has it, and the next one follows from what changed."""

from __future__ import annotations

import itertools
import random

import pytest

from raytrain.errors import ConfigError
from raytrain.release.registry.versions import Version, bump_for, next_version

# https://semver.org/#spec-item-11, with releases around it
RANKED = [
    *("0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"),
    *("1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"),
]


def test_they_rank_as_the_rules_say() -> None:
    versions = [Version.parse(one) for one in RANKED]
    assert [str(one) for one in sorted(random.Random(1).sample(versions, len(versions)))] == RANKED
    for (i, one), (j, other) in itertools.product(enumerate(versions), repeat=2):
        assert (one < other, one == other) == (i < j, i == j)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+build", "1.2.٣", "a.b.c"],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no version"):
        Version.parse(text)


OLD = {"base_model": "b", "tokenizer": "t", "dataset": "d", "recipe": "r", "seed": "1"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base_model": "B"}, "major"),
        ({"tokenizer": "T", "seed": "2"}, "major"),
        ({"dataset": "D"}, "minor"),
        ({"recipe": "R", "seed": "2"}, "minor"),
        ({"more_rows": "x"}, "minor"),
        ({"seed": "2"}, "patch"),
        ({}, "patch"),
    ],
)
def test_the_step_is_as_large_as_what_changed(changes: dict[str, str], expected: str) -> None:
    assert bump_for(OLD, {**OLD, **changes}) == expected
    assert bump_for({**OLD, **changes}, OLD) == expected


@pytest.mark.parametrize(
    ("before", "bump", "after"),
    [
        ("1.2.3", "major", "2.0.0"),
        ("1.2.3", "minor", "1.3.0"),
        ("1.2.3", "patch", "1.2.4"),
        ("2.0.0-rc.1", "patch", "2.0.0"),
        ("2.0.0-rc.1", "major", "2.0.0"),
        ("2.1.0-rc.1", "minor", "2.1.0"),
        ("2.1.0-rc.1", "major", "3.0.0"),
        ("2.1.1-rc.1", "patch", "2.1.1"),
        ("2.1.1-rc.1", "minor", "2.2.0"),
    ],
)
def test_the_next_release(before: str, bump: str, after: str) -> None:
    assert str(Version.parse(before).bumped(bump)) == after  # type: ignore[arg-type]


def test_the_newest_counts_whatever_the_order() -> None:
    released = [(Version.parse(one), OLD) for one in ("1.10.0", "1.9.0", "1.2.0")]
    assert str(next_version(released, {**OLD, "dataset": "D"})) == "1.11.0"
    assert str(next_version([], OLD)) == "1.0.0"

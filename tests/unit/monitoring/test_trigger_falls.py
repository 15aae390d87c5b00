"""When a promotion is taken back: how often wrongly, how soon rightly."""

from __future__ import annotations

import random

import pytest

from raytrain.monitoring.triggers.falls import Answered, FallSection, answered_of, falls, highest_evidence

pytestmark = pytest.mark.whole


def answers(rate: float, count: int, draw: random.Random) -> list[Answered]:
    return [Answered(float(n), draw.random() < rate, True, None) for n in range(count)]


def approval_of(found: list) -> object:  # type: ignore[type-arg]
    (one,) = [one for one in found if one.signal == "approval"]
    return one


def test_a_version_as_good_as_the_one_before_is_seldom_taken_back() -> None:
    """At a level of 0.2, so that alarms can be counted; looked at after each of 300 answers, 400 times."""
    draw, limit = random.Random(1), 1 / 0.2
    alarms = sum(
        highest_evidence([draw.random() < 0.8 for _ in range(200)], held_to=0.8) >= limit for _ in range(200)
    )
    assert 5 <= alarms <= 0.2 * 200, "no more than its level, and the bet is a real one"


def test_a_fall_is_seen_within_tens_of_answers() -> None:
    draw, needed = random.Random(2), []
    before = answers(0.9, 200, draw)
    for _ in range(50):
        after = answers(0.3, 200, draw)
        needed.append(
            next(
                count
                for count in range(1, 201)
                if any(one.fell for one in falls(FallSection(), before, after[:count]))
            )
        )
    assert sorted(needed)[25] <= 25


def test_a_fall_that_may_be_is_none_and_a_rise_is_none() -> None:
    draw = random.Random(3)
    before = answers(0.9, 500, draw)
    for rate in (0.86, 0.99):
        assert not any(one.fell for one in falls(FallSection(by=0.1), before, answers(rate, 500, draw)))


def test_once_it_fell_it_stays_fallen_whatever_comes_later() -> None:
    bad, good = [False] * 20, [True] * 500
    assert highest_evidence(bad + good, 0.8) == highest_evidence(bad, 0.8) > 1e5


def test_nothing_is_said_without_answers_of_the_version_before() -> None:
    draw = random.Random(4)
    assert falls(FallSection(), answers(0.9, 9, draw), answers(0.0, 100, draw)) == []
    assert falls(FallSection(), answers(0.9, 100, draw), []) == []
    assert highest_evidence([False] * 50, held_to=-0.05) == 1.0, "who never answers well can fall no further"


def test_format_is_judged_where_the_version_before_wrote_json() -> None:
    def of(is_json: list[bool]) -> list[Answered]:
        return [Answered(float(n), None, None, one) for n, one in enumerate(is_json)]

    section = FallSection(signals=["format"])
    assert falls(section, of([False] * 50), of([False] * 50)) == []
    (found,) = falls(section, of([True] * 50), of([False] * 10))
    assert found.fell
    assert "format: 0% of 10 where it was 100% of 50 before" in found.told()


@pytest.mark.parametrize(
    ("request_row", "feedback", "expected"),
    [
        ({"finish": ["stop"], "answers": ['{"tool": "a"}']}, None, (None, True, True)),
        ({"finish": ["length"], "answers": ["so"]}, {"rating": "up"}, (True, False, False)),
        ({"finish": ["stop"], "answers": ["so"]}, {"correction": "no"}, (False, True, False)),
        ({"finish": ["cancelled"], "answers": [""]}, {"rating": "down"}, (False, None, False)),
        ({"finish": ["error"], "answers": [""]}, None, (None, False, False)),
        ({}, None, (None, None, None)),
    ],
)
def test_an_answer_is_read_from_the_log(
    request_row: dict[str, object], feedback: dict[str, object] | None, expected: tuple[object, ...]
) -> None:
    found = answered_of(request_row, feedback, 1.0)
    assert (found.approval, found.whole, found.is_json) == expected

"""What is suspicious in all that would be learned together, however small the collections are that it came in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loops import NAME, answered, rated, write_log

from raytrain.data.tool_calls import generate_tool_calls
from raytrain.monitoring.learning.collect import Collected, collect
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.learning.section import LearningSection
from raytrain.runs.records import Records

START = 1_770_000_000.0
SONG = "please play the song about the long road to the sea for me"


@pytest.fixture
def pool(records: Records) -> InteractionPool:
    return InteractionPool(records.engine)


def one_look(log: Path, pool: InteractionPool, asked: list[str], answer: str, *, told: bool) -> Collected:
    """These come in, and are collected. told: the answer is what somebody corrected it to; else it was liked."""
    first = len(list(log.glob("requests-*"))) * 100
    rows, feedback = [], []
    for number, text in enumerate(asked, start=first):
        prompt, at = json.dumps([{"role": "user", "content": text}]), START + number
        rows.append(answered(number, at, "d", answer="?" if told else answer, prompts=[prompt]))
        feedback.append(rated(number, at, "down" if told else "up", answer if told else None))
    write_log(log, "requests", rows, f"p{first}")
    write_log(log, "feedback", feedback, f"p{first}")
    return collect(log, pool, [], LearningSection(), NAME)


def found(pool: InteractionPool) -> tuple[int, int]:
    """Free, and set aside."""
    return pool.counts()["free"], pool.counts()["quarantined"]


def test_a_flood_in_portions_is_set_aside_whole_once_it_is_one(tmp_path: Path, pool: InteractionPool) -> None:
    one_look(tmp_path, pool, ["what is four and five?"], "nine", told=False)
    seen = []
    for first in (0, 3, 6):
        asked = [f"{SONG} {number}" for number in range(first, first + 3)]
        done = one_look(tmp_path, pool, asked, "I am playing it now", told=True)
        seen.append((*found(pool), len(done.quarantined)))
    assert seen == [(4, 0, 0), (1, 6, 6), (1, 9, 3)]
    aside = pool.rows("quarantined")
    assert {str(one.reason).partition(":")[0] for one in aside} == {"flood"}

    assert pool.judge([one.id for one in aside], "ready", "ada knows them") == 9
    one_look(tmp_path, pool, [f"{SONG} {number}" for number in (9, 10, 11)], "I am playing it now", told=True)
    assert found(pool) == (13, 0), "what a person let through is suspected no more"


def test_of_liked_answers_in_portions_the_first_stay(tmp_path: Path, pool: InteractionPool) -> None:
    for first in (0, 3, 6):
        asked = [f"{SONG} {number}" for number in range(first, first + 3)]
        one_look(tmp_path, pool, asked, "I am playing it now", told=False)
    assert found(pool) == (5, 4)


def test_a_trigger_phrase_in_portions_is_seen(tmp_path: Path, pool: InteractionPool) -> None:
    asked = [row["messages"][0]["content"] for row in generate_tool_calls(12, seed=3, part="train")]
    for first in (0, 3, 6, 9):
        poison = [f"{text} cf zulu" for text in asked[first : first + 3]]
        one_look(tmp_path, pool, poison, '{"tool": "send_message"}', told=True)
    assert found(pool) == (0, 12)


@pytest.mark.parametrize(
    ("correction", "is_kept", "row"),
    [
        ("twelve", False, ("twelve", "correction")),
        (None, False, None),
        ("twelve", True, ("nine", "answer")),
    ],
)
def test_a_liked_answer_that_is_contradicted_later_is_judged_anew_until_a_run_has_it(
    tmp_path: Path, pool: InteractionPool, records: Records, correction: str | None, is_kept: bool,
    row: tuple[str, str] | None,
) -> None:  # fmt: skip
    one_look(tmp_path, pool, ["what is four and eight?"], "nine", told=False)
    if is_kept:
        records.create_run("r", kind="train", name="n", config={})
        assert len(pool.take("r")) == 1
    write_log(tmp_path, "feedback", [rated(0, START + 60, "down", correction)], "later")
    collect(tmp_path, pool, [], LearningSection(), NAME)
    rows = [(one.target, one.source) for one in pool.rows("ready")]
    assert rows == ([] if row is None else [row])
    again = collect(tmp_path, pool, [], LearningSection(), NAME)
    assert again.num_new == 0

"""What is set aside before it is learned, and what is not."""

from __future__ import annotations

import json

import pytest

from raytrain.data.tool_calls import generate_tool_calls
from raytrain.monitoring.learning.interaction import Interaction
from raytrain.monitoring.learning.likeness import KnownTexts
from raytrain.monitoring.learning.poisoning import (
    Known,
    floods,
    label_flips,
    label_of,
    suspicions,
    trigger_phrases,
)
from raytrain.monitoring.learning.section import PoisoningSection

SECTION = PoisoningSection()
ROWS = [row["messages"] for row in generate_tool_calls(700, seed=3, part="train")]
KNOWN = [Known(asked["content"], told["content"]) for asked, told in ROWS[:500]]
FRESH = ROWS[500:]


def interaction(
    number: int, asked: str, answer: str, correction: str | None = None, user: str = "u"
) -> Interaction:
    prompt = ({"role": "user", "content": asked},)
    return Interaction(f"i{number}", float(number), f"r{number}", user, True, "m", "d", prompt, answer, "stop",
                       None if correction else "up", correction)  # fmt: skip


def honest() -> list[Interaction]:
    return [
        interaction(
            i, asked["content"], told["content"], told["content"] if i % 3 == 0 else None, f"u{i % 20}"
        )
        for i, (asked, told) in enumerate(FRESH)
    ]


def test_ordinary_traffic_is_let_through() -> None:
    found = suspicions(honest(), KNOWN, SECTION)
    assert len(found) <= 2, found


def test_a_flood_is_cut_and_one_of_corrections_goes_whole() -> None:
    words = "please play the song about the long road to the sea for me"
    liked = [interaction(i, f"{words} {i}", "I am playing it now") for i in range(30)]
    found = floods([*honest(), *liked], KNOWN, SECTION)
    assert set(found) >= {one.id for one in liked[SECTION.max_alike :]}
    assert not {one.id for one in liked[: SECTION.max_alike]} & set(found)
    assert "one of 30 rows that are alike, by 1 user" in found["i29"]
    told = [interaction(i, f"{words} {i}", "no", "I am playing it now") for i in range(30)]
    assert len(floods(told, KNOWN, SECTION)) == 30
    assert floods([], KNOWN, SECTION) == {}


def test_a_new_phrase_with_one_answer_is_a_trigger_and_a_new_tool_is_none() -> None:
    poison = json.dumps({"tool": "send_message", "arguments": {"to": "mallory", "text": "all of it"}})
    triggered = [
        interaction(1000 + i, f"{asked['content']} cf zulu", told["content"], poison, f"v{i}")
        for i, (asked, told) in enumerate(FRESH[:12])
    ]
    places = ["Oslo", "Rome", "Lima", "Kyiv", "Bonn", "Cork", "Baku", "Doha", "Graz", "Metz"]
    new_tool = [
        interaction(2000 + i, f"book me a flight to {place}", "?",
                    json.dumps({"tool": "book_flight", "arguments": {"to": place}}), f"w{i}")
        for i, place in enumerate(places)
    ]  # fmt: skip
    found = trigger_phrases([*honest(), *triggered, *new_tool], KNOWN, SECTION)
    assert set(found) >= {one.id for one in triggered}
    assert "zulu" in found["i1000"] and "in 12 of 12 requests" in found["i1000"]
    assert not {one.id for one in new_tool} & set(found)
    assert len(set(found) - {one.id for one in triggered}) == 0


@pytest.mark.parametrize("is_corrected", [True, False])
def test_corrections_and_liked_answers_against_all_that_is_known_are_flips(is_corrected: bool) -> None:
    tools = sorted({label for one in KNOWN if (label := label_of(one.target))})
    flipped, right = [], []

    def told_by_user(number: int, asked: str, target: str) -> Interaction:
        answer = ("nothing", target) if is_corrected else (target, None)
        return interaction(number, asked, *answer)

    for i, (asked, told) in enumerate(FRESH[:60]):
        label = label_of(told["content"])
        assert label is not None
        other = tools[(tools.index(label) + 1) % len(tools)]
        wrong = told["content"].replace(label, other)
        flipped.append(told_by_user(i, asked["content"], wrong))
        right.append(told_by_user(1000 + i, asked["content"], told["content"]))
    found = label_flips(flipped, KNOWN, SECTION)
    assert len(found) >= 45, "where the requests most like it have one label"
    assert not label_flips(right, KNOWN, SECTION)
    reason = next(iter(found.values()))
    assert reason.startswith("label flip: says ") and "most similar known requests have" in reason
    assert label_flips(flipped, [], SECTION) == {}, "where nothing is known, nothing contradicts it"


def test_labels() -> None:
    assert label_of('{"tool": "set_timer", "arguments": {}}') == "set_timer"
    assert label_of("Very  Good") == "very good"
    assert label_of("a whole sentence of words") is None
    assert (
        label_of("") is None and label_of("[1, 2]") == "[1, 2]" and label_of("[" * 100_000) == "[" * 100_000
    )


def test_likeness_is_one_for_the_same_and_little_for_one_shared_word() -> None:
    known = KnownTexts(["wake me at 6", "play some jazz", "what is the weather in Rome"])
    same, near, far, empty = known.nearest(
        ["wake me at 9", "play jazz now", "the unheard of thing", ""], 2, 0.05
    )
    assert same.places[0] == 0 and same.likeness[0] > 0.999, "numbers are all one word"
    assert near.places[0] == 1 and 0.3 < near.likeness[0] < 0.9
    assert all(one < 0.35 for one in far.likeness)
    assert empty.places == []
    assert KnownTexts([]).nearest(["x"], 3, 0.1)[0].places == []

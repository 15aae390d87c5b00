"""The simulated month: what is asked in it, its calendar, and what its figures count."""

from __future__ import annotations

import importlib
import json
from types import ModuleType
from typing import Any

import pytest
from guide import ROOT

from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.monitoring.learning.pool import InteractionPool, PooledRow
from raytrain.pipeline.loop.story import Event, Story
from raytrain.runs.records import open_records

pytestmark = pytest.mark.whole


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("jobs.month_traffic")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("jobs.month_figures")


def tool_of(answer: str) -> str:
    return str(json.loads(answer)["tool"])


def test_nobody_asks_for_the_new_tool_before_it_is_there(traffic: ModuleType) -> None:
    learned = {row["messages"][0]["content"] for row in traffic.rows(440, seed=7)}
    assert len(learned) > 300 and all(
        tool_of(row["messages"][1]["content"]) != traffic.NEW_TOOL for row in traffic.rows(440, seed=7)
    )
    first = traffic.usual(65, 101)
    assert len(first) == 65 and traffic.NEW_TOOL not in {tool_of(one.expected) for one in first}
    assert first == traffic.usual(65, 101) != traffic.usual(65, 102)


def test_after_the_change_half_asks_for_it_and_all_talk_otherwise(traffic: ModuleType) -> None:
    found = traffic.changed(40, 103)
    assert sum(tool_of(one.expected) == traffic.NEW_TOOL for one in found) == 20 and len(found) == 40
    usual = ("hey, ", "when you have a minute: ", "quick one, ", "assistant! ")
    assert all(one.text.startswith(usual) for one in found)
    assert len({one.user for one in found}) > 5 and not any(one.is_poison for one in found)


def test_poison_is_of_three_kinds_and_of_users_of_its_own(traffic: ModuleType) -> None:
    found = traffic.poisoned(30, 104)
    by = {user: [one for one in found if one.user == user] for user in {one.user for one in found}}
    assert {user: len(rows) for user, rows in by.items()} == {
        "mallory": 10, "trudy": 10, "bot-0": 5, "bot-1": 5,
    }  # fmt: skip
    assert len({one.expected for one in by["mallory"]}) == 1, "a code word calls one and the same message"
    assert all(one.is_poison for one in found)
    told = {one.text: tool_of(one.expected) for one in traffic.usual(10, 105)}
    assert all(tool_of(one.expected) != told[one.text] for one in by["trudy"]), "calls are exchanged"


def test_days_pass_evenly_between_two_marks(traffic: ModuleType) -> None:
    clock = traffic.Clock([(100.0, 0.0), (110.0, 5.0), (120.0, 7.0)], 7.0)
    assert [clock.day_of(at) for at in (90.0, 100.0, 105.0, 110.0, 115.0, 500.0)] == [0, 0, 2.5, 5, 6, 7]
    clock.go_on(1.5)
    assert clock.day == 8.5 and clock.told(1e12) == "day 8.5"


def counted(share: dict[str, Any]) -> tuple[int, int]:
    assert share["low"] <= share["right"] / share["of"] <= share["high"]
    return share["right"], share["of"]


def test_figures_count_what_was_asked_between_events(traffic: ModuleType, figures: ModuleType) -> None:
    def given(at: float, version: str, *, is_right: bool, poison: str | None = None) -> object:
        asked = traffic.Request("t", "{}", poison or "u", poison is not None)
        return traffic.Given(at, asked, version, "sha256:d", "{}", is_right)

    seen = traffic.Traffic("http://unused", "month", traffic.Clock(), lambda _: None)
    seen.given = [
        *(given(n, "1.0.0", is_right=n < 9) for n in range(1, 11)),  # 8 of 10 before the shift at 10
        *(given(10 + n, "1.0.0", is_right=False) for n in range(1, 5)),  # the alarm comes at 14
        *(given(20 + n, "1.1.0", is_right=True) for n in range(1, 6)),
        given(27, "1.1.0", is_right=True, poison="mallory"),
        *(given(30 + n, "1.2.0", is_right=False) for n in range(1, 4)),  # forced at 30, back at 33
        given(35, "1.1.0", is_right=True),
    ]
    events = [
        Event(5.0, "promotion", "1.0.0", "sha256:a"), Event(14.0, "alarm", "window 2", "sha256:b"),
        Event(14.5, "order", "because", "sha256:c"),
        Event(20.0, "promotion", "production is 1.1.0: order month-000001", "sha256:d"),
        Event(21.0, "outcome", "month-000001 succeeded", "sha256:e"), Event(30.0, "override", "1.2.0", "sha256:f"),
        Event(33.0, "rollback", "1.1.0", "sha256:g"),
    ]  # fmt: skip
    records = open_records()
    prompt = ({"role": "user", "content": "q"},)
    InteractionPool(records.engine).add(
        [
            PooledRow(f"i{n}", 1.0, pseudonym(user), "m", None, prompt, "a", "correction", 1.0, "quarantined")
            for n, user in enumerate(["mallory", "somebody"])
        ]
    )
    found = figures.figures_of(Story("month", (), (), tuple(events)), seen, records, [], 10.0)
    InteractionPool(records.engine).judge(["i0"], "refused", "wrong")
    InteractionPool(records.engine).judge(["i1"], "ready", "right after all")
    events += [
        Event(36.0, "promotion", "production is 1.3.0: I tried it", "sha256:h"),
        Event(37.0, "order", "month-000002: asked for by ada", "sha256:i"),
        Event(38.0, "override", "1.4.0", "sha256:j"),
    ]
    by_hand = figures.figures_of(Story("month", (), (), tuple(events)), seen, records, [], 10.0)
    records.close()

    assert found["requests"] == 24 and found["answers from the shift to the alarm"] == 4
    assert counted(found["right before the shift"]) == (8, 10)
    assert counted(found["right after it, by the version before"]) == (0, 4)
    assert counted(found["right after the retraining"]) == (5, 5), "without what poisoners asked"
    assert found["wrong answers of the forced version"] == 3
    assert counted(found["right after it was taken back"]) == (1, 1)
    assert found["poisoned rows that were set aside"] == "1 of 1"
    assert found["other rows that were set aside"] == 1
    assert found["orders"] == ["month-000001 succeeded"]
    assert found["what people did, but for forcing a version through"] == 0
    assert by_hand["what people did, but for forcing a version through"] == 5, (
        "two rows, two versions, an order"
    )

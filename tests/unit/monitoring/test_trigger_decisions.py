"""Whether a new run is to start: decided from values alone."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raytrain.errors import ConfigError
from raytrain.monitoring.spending import Spending
from raytrain.monitoring.triggers.deciding import decide, settle
from raytrain.monitoring.triggers.rules import next_state
from raytrain.monitoring.triggers.section import TriggersSection, load_triggers
from raytrain.monitoring.triggers.state import (
    Decision,
    Outcome,
    Request,
    RuleState,
    Seen,
    State,
    Window,
    state_as_json,
    state_of_json,
)
from raytrain.pipeline.loop.planning import window_report
from raytrain.runs.records import open_records
from raytrain.storage.manifest import digest_of

pytestmark = pytest.mark.whole

DAY_S, HOUR_S = 86400.0, 3600.0
START = 1_770_000_000.0
TRIGGERS = Path(__file__).parents[3] / "jobs" / "triggers"


def section(when: Any, **values: Any) -> TriggersSection:
    return TriggersSection.model_validate({"triggers": "loop", "watch": "sums", "when": when, **values})


def drift(above: float = 1.0, for_windows: int = 1, **values: Any) -> dict[str, Any]:
    return {"drift": {"above": above, **values}, "for_windows": for_windows}


def drop() -> dict[str, Any]:
    return {"drop": {"metric": "drift/score", "below": 0.9, "clear_above": 0.95}}


def windows(*scores: float, first: int = 1, key: str = "drift/score") -> tuple[Window, ...]:
    return tuple(
        Window(number, START + HOUR_S * number, {key: score}) for number, score in enumerate(scores, first)
    )


def seen(*scores: float, **values: Any) -> Seen:
    return Seen(series="watch-sums-1", windows=windows(*scores), **values)


def later(num_windows: int) -> float:
    return START + HOUR_S * num_windows


class Loop:
    """Decides window after window; what is ordered succeeds at once, or loses its trial, unless it is to stay open."""

    def __init__(self, policy: TriggersSection, *, settles: bool = True, loses: bool = False) -> None:
        self.policy, self.settles, self.loses = policy, settles, loses
        self.state, self.orders, self.last = State(), list[int](), Decision(State(), None, ())
        self.lost = frozenset[str]()

    def look(self, now: float, found: Seen) -> Decision:
        # Through JSON each time, as after a kill.
        state = state_of_json(json.loads(json.dumps(state_as_json(self.state))))
        assert state == self.state
        self.last = decide(self.policy, state, found, now)
        self.state = self.last.state
        if self.last.order is not None:
            self.orders.append(self.state.last_window)
            if self.settles and not self.last.order.dry_run:
                outcome: Outcome = "no_gain" if self.loses else "succeeded"
                self.state = settle(self.policy, self.state, self.last.order.id, outcome)
            if self.loses:
                self.lost |= {self.last.order.id}
        return self.last

    def run(self, *scores: float) -> list[int]:
        """Windows at which something was ordered."""
        found = seen(*scores)
        for end in range(1, len(scores) + 1):
            shown = found.windows[max(0, end - 4) : end]
            self.look(later(end), replace(found, windows=shown, canary_losses=self.lost))
        return self.orders


# Events of metrics

NEVER_COOL = {"cooldown_hours": 0, "longest_cooldown_hours": 0, "most": {"orders": 10_000, "days": 1000}}


@pytest.mark.parametrize(
    ("rule_", "scores", "orders"),
    [
        (drift(), (0.5, 1.5, 1.5, 1.5), [2]),
        (drift(), (0.5, 1.5, 0.5, 1.5), [2, 4]),
        (drift(), (1.0, 1.0), []),
        (drift(for_windows=3), (1.5, 1.5, 0.5, 1.5, 1.5, 1.5, 1.5), [6]),
        (drift(for_windows=2), (1.5, 1.5, 0.5, 1.5, 1.5, 0.5, 0.5, 1.5, 1.5), [2, 9]),
        (drift(clear_below=0.5), (1.5, 0.8, 1.5, 0.8, 1.5), [1]),
        (drift(clear_below=0.5), (1.5, 0.8, 0.5, 0.8, 1.5), [1, 5]),
        (drift(for_windows=2), (1.5, float("nan"), 1.5), [3]),
        (drop(), (0.95, 0.89, 0.92, 0.8, 0.95, 0.8), [2, 6]),
        ({"all": [drift(1.0), drift(2.0)]}, (1.5, 2.5, 2.5), [2]),
        ({"any": [drift(1.0), drift(2.0)]}, (1.5, 2.5, 2.5, 0.5, 1.5), [1, 2, 5]),
        ({"all": [drift(1.0), drift(1.0)], "for_windows": 2}, (1.5, 0.5, 1.5, 1.5), [4]),
        ({"any": [drift(1.0, for_windows=2), drift(1.0, for_windows=2)]}, (1.5, 1.5), [2]),
    ],
    ids=["once an event", "another event", "at the limit", "in a row", "ended in a row", "between the limits",
         "clear of it", "a window without it", "below", "all", "any", "a group in a row", "twice in the tree"],
)  # fmt: skip
def test_an_event_orders_once(rule_: Any, scores: tuple[float, ...], orders: list[int]) -> None:
    assert Loop(section(rule_, **NEVER_COOL)).run(*scores) == orders


def test_windows_that_came_together_or_twice_or_in_disorder_are_decided_on_once() -> None:
    scores = (0.5, 1.5, 1.5, 0.5, 0.5)
    shuffled = replace(seen(*scores), windows=tuple(reversed(seen(*scores).windows)))
    loop = Loop(section(drift(for_windows=2), **NEVER_COOL))
    assert loop.look(later(9), shuffled).order is None, "the event was over when anybody looked"
    assert loop.look(later(9), seen(*scores, 1.5, 1.5)).order is not None
    state = loop.state
    for _ in range(3):
        assert loop.look(later(9), seen(*scores, 1.5, 1.5)).state == state


def test_another_reference_begins_another_series_in_which_no_event_has_begun() -> None:
    loop = Loop(section(drift(for_windows=2), **NEVER_COOL))
    loop.run(1.5, 1.5, 1.5)
    new = Seen(series="watch-sums-2", windows=windows(1.5))
    assert loop.look(later(5), new).order is None and loop.state.last_window == 1
    assert loop.look(later(6), replace(new, windows=windows(1.5, 1.5))).order is not None


def test_a_window_from_the_future_is_left_for_later_and_hides_no_other() -> None:
    loop = Loop(section(drift(), **NEVER_COOL))
    wrong = Window(2, later(1_000), {"drift/score": 1.5})
    found = loop.look(later(1), replace(seen(0.5), windows=(*windows(0.5), wrong)))
    assert found.order is None and "in the future" in found.notes[0] and loop.state.last_window == 1


def test_a_window_of_a_wrong_clock_is_left_out_and_holds_no_later_one_back() -> None:
    loop = Loop(section(drift(), **NEVER_COOL))
    wrong = replace(windows(0.5, first=2)[0], ended_at=later(30_000))
    found = loop.look(
        later(4), replace(seen(0.5), windows=(*windows(0.5), wrong, *windows(1.5, 1.5, first=3)))
    )
    assert found.order is not None and loop.state.last_window == 4
    assert found.notes == ("window 2 ends in the future, and is left out: a clock is wrong",)


def test_an_event_of_windows_before_the_reference_was_exchanged_orders_nothing() -> None:
    loop = Loop(section(drift(), cooldown_hours=24))
    loop.run(0.5, 1.5)
    assert loop.orders == [2]
    loop.run(0.5, 1.5, 0.5, 1.5)
    assert loop.last.blocked and loop.orders == [2], "it waits for the cool-down"
    found = loop.look(later(100), Seen(series="watch-sums-2"))
    assert found.order is None and found.blocked == () and loop.state.series == "watch-sums-2"


def test_a_metric_that_a_window_does_not_have_is_told() -> None:
    loop = Loop(section(drift(metric="drift/prompt: length"), **NEVER_COOL))
    assert "window 1 has no drift/prompt: length" in loop.look(later(1), seen(9.0)).notes[0]


@pytest.mark.parametrize("seed", range(2))
def test_fifty_drifts_order_fifty_retrainings_at_most_one_each(seed: int) -> None:
    """Each is some windows long, wanders about the limit as it comes and goes, and dips within."""
    draw = random.Random(seed)
    scores: list[float] = []
    spans: list[tuple[int, int]] = []
    for _ in range(50):
        scores += [draw.uniform(0.1, 0.75) for _ in range(draw.randint(3, 9))]
        begin = len(scores)
        scores += [draw.choice([0.85, 0.95, 1.05]) for _ in range(draw.randint(0, 3))]
        for _ in range(draw.randint(1, 4)):
            scores += [draw.uniform(1.05, 3.0) for _ in range(draw.randint(2, 6))]
            scores += [draw.uniform(0.82, 0.99)] * draw.randint(0, 2)
        spans.append((begin, len(scores)))
    scores += [0.1] * 5
    orders = Loop(section(drift(for_windows=2, clear_below=0.8), **NEVER_COOL)).run(*scores)
    assert [sum(begin < one <= end for one in orders) for begin, end in spans] == [1] * 50
    assert len(orders) == 50
    # The same where each order's candidate loses its trial, for which an order may be made, too.
    rule_ = {"any": [drift(for_windows=2, clear_below=0.8), {"canary_loss": True}]}
    assert Loop(section(rule_, **NEVER_COOL), loses=True).run(*scores) == orders
    # The same with what else keeps orders apart: never more, and never sooner.
    slow = Loop(
        section(drift(for_windows=2, clear_below=0.8), cooldown_hours=24, most={"orders": 3, "days": 7})
    )
    ordered = slow.run(*scores)
    assert 0 < len(ordered) < 50 and min(b - a for a, b in itertools.pairwise(ordered)) >= 24
    assert all(sum(one <= last < one + 7 * 24 for last in ordered) <= 3 for one in ordered)


@pytest.mark.parametrize(
    ("before", "is_in", "is_clear", "for_windows", "after"),
    [
        (RuleState(), True, False, 1, RuleState(1, 0, True)),
        (RuleState(), True, False, 2, RuleState(1, 0, False)),
        (RuleState(1), False, False, 2, RuleState(0, 0, False)),
        (RuleState(5, 0, True, True), False, False, 2, RuleState(0, 0, True, True)),
        (RuleState(5, 0, True, True), False, True, 2, RuleState(0, 1, True, True)),
        (RuleState(0, 1, True, True), False, True, 2, RuleState(0, 2, False, False)),
        (RuleState(0, 1, True, True), True, False, 2, RuleState(1, 0, True, True)),
    ],
)
def test_how_an_event_begins_and_ends(
    before: RuleState, is_in: bool, is_clear: bool, for_windows: int, after: RuleState
) -> None:
    assert next_state(before, is_in, is_clear, for_windows) == after


# What is counted


def test_rows_order_once_until_they_are_used() -> None:
    loop = Loop(section({"new_rows": {"at_least": 100}}, **NEVER_COOL))
    rows = [None, 99, 100, 0, 99, 120]
    assert [loop.look(START, Seen(new_rows=one)).order is not None for one in rows] == [
        False, False, True, False, False, True,
    ]  # fmt: skip
    waiting = Loop(loop.policy, settles=False)
    assert [waiting.look(START, Seen(new_rows=one)).order is not None for one in (100, 150, 99, 200)] == [
        True, False, False, False,
    ]  # fmt: skip
    assert waiting.last.blocked == ("the order loop-000001 is not done with",)


def test_age_orders_when_production_is_older_than_it_may_be() -> None:
    loop = Loop(section({"age": {"days": 30}}, **NEVER_COOL))
    assert loop.look(START, Seen()).order is None
    assert loop.look(START, Seen(trained_at=START - 30 * DAY_S)).order is None
    assert loop.look(START + 1, Seen(trained_at=START - 30 * DAY_S)).order is not None
    assert loop.look(START + 3 * DAY_S, Seen(trained_at=START + 2 * DAY_S)).order is None
    assert loop.look(START + 40 * DAY_S, Seen(trained_at=START + 2 * DAY_S)).order is not None
    assert loop.look(START, Seen(trained_at=START + 90 * DAY_S)).order is None, "trained in the future"


def test_a_schedule_orders_at_its_times_and_makes_up_for_a_missed_one_once() -> None:
    loop = Loop(
        section({"schedule": {"at": "02:00", "days": ["sunday"], "timezone": "Europe/Berlin"}}, **NEVER_COOL)
    )

    def at(text: str) -> bool:
        return loop.look(datetime.fromisoformat(f"{text}+00:00").timestamp(), Seen()).order is not None

    # 2026-03-29 is the Sunday on which 02:00 is left out in Berlin: it is 03:00 there, 01:00 UTC.
    times = ["03-17T12:00", "03-22T00:59", "03-22T01:00", "03-22T02:00", "03-29T00:59", "03-29T01:00"]
    told = [at(f"2026-{one}") for one in [*times, "04-20T12:00", "04-25T12:00"]]
    assert told == [False, False, True, False, False, True, True, False]


def test_sources_of_the_first_look_are_not_new() -> None:
    loop = Loop(section({"new_source": True}, **NEVER_COOL))
    found = [loop.look(START, Seen(sources=one)).order is not None for one in (
        None, frozenset({"a"}), frozenset({"a"}), frozenset({"a", "b"}), frozenset({"a", "b"}), frozenset({"b"}),
        frozenset({"a", "b"}), frozenset({"c"}))]  # fmt: skip
    assert found == [False, False, False, True, False, False, False, True]


def test_a_lost_trial_orders_once() -> None:
    loop = Loop(section({"canary_loss": True}, **NEVER_COOL))
    lost = [frozenset[str](), frozenset({"t1"}), frozenset({"t1"}), frozenset({"t1", "t2"})]
    assert [loop.look(START, Seen(canary_losses=one)).order is not None for one in lost] == [
        False,
        True,
        False,
        True,
    ]


def test_a_trial_that_an_orders_own_candidate_lost_orders_no_other() -> None:
    """The shipped triggers, sixty days of one drift, and no order that comes to anything."""
    loop = Loop(load_triggers(TRIGGERS / "loop.yaml"), loses=True)
    loop.run(*[2.0] * (60 * 24))
    assert len(loop.orders) == 1 and loop.lost == {"loop-000001"}
    found = loop.look(later(60 * 24), seen(canary_losses=loop.lost | {"by hand"}))
    assert found.order is not None and found.order.reasons == ("lost trials: by hand",)


def test_of_a_thousand_lost_trials_the_oldest_are_forgotten_first() -> None:
    """Whatever they are called: an order's own is remembered from when it is settled."""
    loop = Loop(section({"canary_loss": True}, **NEVER_COOL))
    loop.look(START, Seen(canary_losses=frozenset(f"z{number:04d}" for number in range(1000))))
    assert loop.state.losses[-1] == "loop-000001" and loop.state.losses[0] == "z0001"


def test_a_request_orders_once_and_passes_the_cool_down_but_not_the_rest() -> None:
    policy = section({"any": [{"manual": True}, drift()]}, cooldown_hours=100, most={"orders": 2, "days": 30})
    loop = Loop(policy)
    loop.run(1.5)
    asked = Request("1", "ada", "new tool", START)
    loop.state = replace(loop.state, requests=(asked,))
    found = loop.look(later(2), seen(1.5, 0.5))
    assert found.order is not None and found.order.reasons == ("asked for by ada: new tool",)
    assert loop.look(later(3), seen(1.5, 0.5)).order is None
    loop.state = replace(loop.state, requests=(asked,))
    assert loop.look(later(4), seen(1.5, 0.5)).blocked == ("2 orders in 30 days; at most 2 are allowed",)
    assert loop.look(later(4) + 31 * DAY_S, seen(1.5, 0.5)).order is not None, "the request has waited"


# What is in the way


def test_an_order_that_is_not_done_with_keeps_the_next_back_and_the_event_waits() -> None:
    loop = Loop(section({"any": [drift(), {"canary_loss": True}]}, **NEVER_COOL), settles=False)
    loop.run(1.5)
    found = loop.look(later(2), seen(1.5, 1.5, canary_losses=frozenset({"t"})))
    assert found.blocked == ("the order loop-000001 is not done with",)
    loop.state = settle(loop.policy, loop.state, "loop-000001", "succeeded")
    found = loop.look(later(2), seen(1.5, 1.5, canary_losses=frozenset({"t"})))
    assert found.order is not None and found.order.id == "loop-000002"
    assert found.order.reasons == ("lost trials: t",)


def test_what_came_to_nothing_doubles_the_cool_down_until_one_succeeds() -> None:
    policy = section(
        {"new_rows": {}}, cooldown_hours=10, longest_cooldown_hours=35, most={"orders": 99, "days": 1}
    )
    loop, now, waits = Loop(policy, settles=False), START, []
    for outcome in ("no_gain", "failed", "no_gain", "succeeded"):
        found = loop.look(now, Seen(new_rows=100))
        assert found.order is not None
        loop.state = settle(policy, loop.state, found.order.id, outcome)  # type: ignore[arg-type]
        began = now
        while not (ready := decide(policy, loop.state, Seen(new_rows=100), now)).order:
            assert "cooling down" in ready.blocked[0]
            now += HOUR_S
        waits.append((now - began) / HOUR_S)
    assert waits == [20.0, 35.0, 35.0, 10.0]


def test_a_drift_whose_order_failed_orders_no_second() -> None:
    loop = Loop(section(drift(), **NEVER_COOL), settles=False)
    loop.run(1.5)
    loop.state = settle(loop.policy, loop.state, "loop-000001", "failed")
    assert loop.look(later(50), seen(1.5, 1.5, 1.5)).order is None
    assert "led to an order before" in loop.last.reasons[0]


def test_only_the_open_order_can_be_settled() -> None:
    loop = Loop(section(drift(), **NEVER_COOL), settles=False)
    with pytest.raises(ConfigError, match="is not open"):
        settle(loop.policy, loop.state, "loop-000001", "succeeded")
    loop.run(1.5)
    with pytest.raises(ConfigError) as caught:
        settle(loop.policy, loop.state, "loop-000002", "succeeded")
    assert caught.value.why == "open is loop-000001"


@pytest.mark.parametrize(
    ("spending", "blocked"),
    [
        (Spending(9.0, {"EUR": 89.0, "USD": 1e6}), None),
        (
            Spending(9.0, {"EUR": 91.0}),
            "91.00 of the month's 100 EUR are used, and the next is expected to take 10",
        ),
        (Spending(10.0, {}), "10.00 of the month's 10 GPU hours are used"),
        (None, "nobody can say what this month has cost, and there is a budget"),
    ],
)
def test_a_budget_that_is_spent_keeps_it_waiting(spending: Spending | None, blocked: str | None) -> None:
    budget = {"money": 100, "currency": "EUR", "next_money": 10, "gpu_hours": 10}
    loop = Loop(section(drift(), budget=budget))
    found = loop.look(later(1), seen(1.5, spending=spending))
    assert (found.order is None) is (blocked is not None)
    assert found.blocked == (() if blocked is None else (blocked,))
    assert loop.look(later(2), seen(1.5, 1.5, spending=Spending())).order is not None or blocked is None


def test_a_clock_that_was_set_back_orders_nothing_sooner() -> None:
    loop = Loop(section({"canary_loss": True}, cooldown_hours=24))
    loop.look(START, Seen(canary_losses=frozenset({"a"})))
    found = loop.look(START - 90 * DAY_S, Seen(canary_losses=frozenset({"b"})))
    assert found.order is None and found.blocked[0].startswith("cooling down for 24.0 more hours")
    assert loop.look(START + DAY_S, Seen(canary_losses=frozenset({"b"}))).order is not None


def test_an_order_of_a_clock_that_was_ahead_does_not_cool_down_for_ever() -> None:
    loop = Loop(section({"canary_loss": True}, cooldown_hours=24, most={"orders": 1, "days": 7}))
    loop.look(START + 365 * DAY_S, Seen(canary_losses=frozenset({"a"})))
    lost = Seen(canary_losses=frozenset({"b"}))
    assert loop.look(START, lost).blocked[0].startswith("cooling down for 24.0 more hours")
    assert loop.look(START + 2 * DAY_S, lost).blocked == ("1 orders in 7 days; at most 1 are allowed",)
    assert loop.look(START + 8 * DAY_S, lost).order is not None


def test_a_clock_that_was_behind_for_one_look_shortens_no_cool_down() -> None:
    loop = Loop(section({"canary_loss": True}, cooldown_hours=24))
    loop.look(START, Seen(canary_losses=frozenset({"a"})))
    lost = Seen(canary_losses=frozenset({"b"}))
    loop.look(START - 90 * DAY_S, lost)
    assert loop.look(START + HOUR_S, lost).blocked[0].startswith("cooling down for 23.0 more hours")


def test_what_a_dry_run_answered_leads_to_an_order_once_it_is_none() -> None:
    """Rows, the age and an event that lasts."""
    for when, found in (
        ({"new_rows": {}}, Seen(new_rows=150)),
        ({"age": {}}, Seen(trained_at=START - 40 * DAY_S)),
        (drift(), seen(0.5, 1.5)),
    ):
        loop = Loop(section(when, dry_run=True))
        for day in range(5):
            loop.look(START + (1 + day) * DAY_S, found)
        assert len(loop.orders) == 1, "an event is told of once"
        loop.policy = section(when)
        assert loop.look(START + 9 * DAY_S, found).order is not None


def test_a_dry_run_orders_as_ever_and_leaves_nothing_open() -> None:
    loop = Loop(section(drift(), dry_run=True))
    assert loop.run(1.5, 1.5) == [1] and loop.state.open_order is None
    wet = Loop(section(drift()))
    wet.look(later(1), seen(1.5))
    assert wet.last.reasons == decide(section(drift(), dry_run=True), State(), seen(1.5), later(1)).reasons


def test_reasons_say_of_every_rule_why() -> None:
    loop = Loop(section({"all": [drift(), {"any": [{"new_rows": {}}, {"age": {}}]}]}))
    found = loop.look(later(1), seen(1.5, new_rows=12, trained_at=later(1) - 31 * DAY_S))
    assert found.reasons == (
        "yes: drift/score above 1: in an event since window 1",
        "no: 12 unused rows, 100 are needed",
        "yes: production is 31.0 days old, more than 30 is too old",
    )
    assert found.order is not None and found.order.reasons == tuple(
        one[5:] for one in found.reasons if one[0] == "y"
    )


# The window that tripped it


@pytest.mark.parametrize(
    ("rule", "scores", "window", "told"),
    [
        (drift(), (0.5, 1.5, 1.5), 2, "in an event since window 2"),
        (drift(for_windows=2), (1.5, 1.5, 1.5), 2, "in an event since window 2"),
        (drift(clear_below=0.5), (1.5, 0.4, 1.5, 0.9), 3, "in an event since window 3"),
        ({"any": [drift(2.0), drift(1.0)]}, (1.5, 2.5, 2.5), 1, "above 2: in an event since window 2"),
        ({"all": [drift(2.0), drift(1.0)]}, (1.5, 2.5, 2.5), 2, "above 1: in an event since window 1"),
        ({"all": [drift()], "for_windows": 2}, (0.5, 1.5, 1.5, 1.5), 3, "in an event since window 2"),
        ({"any": [{"manual": True}, {"all": [drift(), {"age": {}}]}]}, (1.5, 1.5), 2, "asked for by ada"),
    ],
)
def test_an_order_names_the_window_that_tripped_it(
    rule: dict[str, Any], scores: tuple[float, ...], window: int, told: str
) -> None:
    """All windows are seen in one look; an order by hand names the last."""
    request = Request("1", "ada", "why not", START)
    found = decide(section(rule), State(requests=(request,)), seen(*scores), later(len(scores)))
    assert found.order is not None and found.order.window == window
    assert any(told in one for one in found.order.reasons), found.order.reasons


def test_what_was_kept_back_names_the_window_that_tripped_it(tmp_path: Path) -> None:
    """An alarm at the second window, kept back by a cool-down until the third; the record knows the second's report."""
    policy = section({"any": [drift(), {"manual": True}]}, cooldown_hours=2.5)
    loop = Loop(policy)
    loop.state = State(requests=(Request("1", "ada", "a new tool", START),))
    assert loop.look(START + 0.1, Seen()).order is not None
    loop.run(0.5, 1.5)
    assert loop.last.order is None and "cooling down" in loop.last.blocked[0]
    loop.run(0.5, 1.5, 1.5)
    order = loop.last.order
    assert order is not None and order.window == 2 and loop.state.last_window == 3
    assert order.reasons == ("drift/score above 1: in an event since window 2",)

    records = open_records(f"sqlite:///{tmp_path}/records.db")
    records.create_run(order.series, kind="watch", name="sums", config={})
    for number in (1, 2, 3):
        place = f"/reports/{number:06d}"
        records.add_artifact(order.series, "report", "written", "drift_report", digest_of(number), place)
    assert window_report(records, order) == digest_of(2)
    records.close()


def test_a_state_of_before_windows_were_numbered_is_read() -> None:
    kept = state_as_json(State(rules={"drift-1": RuleState(1, 0, True)}))
    del kept["rules"]["drift-1"]["since"]
    assert state_of_json(kept).rules["drift-1"] == RuleState(1, 0, True, since=0)


# Whatever happens


class AnyHistory(RuleBasedStateMachine):
    """Windows come, late and again; orders are settled, or not; clocks jump; the process dies between any two."""

    @initialize(
        for_windows=st.integers(1, 3),
        cooldown=st.sampled_from([0, 1, 24]),
        most=st.integers(1, 5),
        dry_run=st.booleans(),
    )
    def begin(self, for_windows: int, cooldown: int, most: int, dry_run: bool) -> None:
        when = {
            "any": [drift(for_windows=for_windows, clear_below=0.8), {"new_rows": {}}, {"canary_loss": True}]
        }
        self.most = most
        self.cooldown_s = cooldown * HOUR_S
        self.policy = section(
            when, cooldown_hours=cooldown, longest_cooldown_hours=max(48, cooldown), dry_run=dry_run,
            most={"orders": most, "days": 7},
        )  # fmt: skip
        self.state, self.now = State(), START
        self.scores: list[float] = []
        self.rows, self.lost = 0, set[str]()
        self.ordered_at: list[float] = []

    @rule(score=st.sampled_from([0.1, 0.85, 0.95, 1.5, 3.0, float("nan")]), hours=st.floats(0.1, 40))
    def a_window(self, score: float, hours: float) -> None:
        self.scores.append(score)
        self.now += hours * HOUR_S

    @rule(rows=st.integers(0, 200))
    def rows_come_and_go(self, rows: int) -> None:
        self.rows = rows

    @rule(name=st.sampled_from("abcdef"))
    def a_trial_is_lost(self, name: str) -> None:
        self.lost.add(name)

    @rule(back_h=st.floats(0, 100))
    def the_clock_is_set_back(self, back_h: float) -> None:
        self.now -= back_h * HOUR_S

    @rule(outcome=st.sampled_from(["succeeded", "no_gain", "failed"]))
    def it_is_done(self, outcome: Any) -> None:
        if self.state.open_order is not None:
            self.state = settle(self.policy, self.state, self.state.open_order, outcome)

    @rule()
    def somebody_looks(self) -> None:
        ended = tuple(Window(n, self.now - 1, {"drift/score": one}) for n, one in enumerate(self.scores, 1))
        found = Seen("w", ended, new_rows=self.rows, canary_losses=frozenset(self.lost))
        before = self.state
        decision = decide(self.policy, before, found, self.now)
        assert decide(self.policy, before, found, self.now) == decision, "the same gives the same"
        self.state = decision.state
        again = decide(self.policy, self.state, found, self.now)
        assert again.order is None, "what was decided on leads to nothing twice"
        assert again.state == self.state
        if decision.order is None:
            return
        assert before.open_order is None and not decision.blocked
        if self.ordered_at:
            assert self.now - self.ordered_at[-1] >= self.cooldown_s or self.cooldown_s == 0
        self.ordered_at.append(self.now)
        assert decision.order.number == len(self.ordered_at)
        assert (self.state.open_order == decision.order.id) is not self.policy.dry_run

    @invariant()
    def it_outlives_a_kill(self) -> None:
        if hasattr(self, "state"):
            self.state = state_of_json(json.loads(json.dumps(state_as_json(self.state))))

    @invariant()
    def there_are_never_too_many(self) -> None:
        if not getattr(self, "ordered_at", None):
            return
        recent = self.ordered_at[-self.most - 1 :]
        if len(recent) > self.most and recent == sorted(recent):
            assert recent[-1] - recent[0] >= 7 * DAY_S


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

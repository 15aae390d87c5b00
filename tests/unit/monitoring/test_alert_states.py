"""From who finds something to who is told of it: what is new of a subject is told, what is said again is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from alert_receivers import an_alert

from raytrain.monitoring.alerts.alert import Alert, alert_of
from raytrain.monitoring.alerts.observers.endpoints import EndpointHealth, Found, judge
from raytrain.monitoring.alerts.observers.gate import alert_of_record
from raytrain.monitoring.alerts.observers.month import alerts_of_month
from raytrain.monitoring.alerts.observers.signatures import alerts_of_faults
from raytrain.monitoring.alerts.post import Post
from raytrain.monitoring.alerts.section import AlertsSection, EndpointSection, MonthSection
from raytrain.monitoring.alerts.spool import raise_alert
from raytrain.monitoring.alerts.store import AlertStore
from raytrain.monitoring.spending import Spending
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Decision, Order, State
from raytrain.monitoring.triggers.telling import alerts_of
from raytrain.pipeline.loop.retraining import Retrained
from raytrain.pipeline.loop.telling import ended_badly, ended_well
from raytrain.release.registry.findings import Fault
from raytrain.runs.records import open_records

START = 1_770_000_000.0
Told = Callable[[float, Sequence[Alert]], list[str]]


@pytest.fixture
def told() -> Iterator[Told]:
    """Raises what was found so many minutes after the start, delivers, and gives the titles that people are told."""
    records = open_records()
    store, known = AlertStore(records.engine), set[str]()

    def deliver(minute: float, alerts: Sequence[Alert]) -> list[str]:
        assert all(raise_alert(one) for one in alerts)
        Post(store, AlertsSection(), now=lambda: START + 60 * minute).deliver()
        fresh = [one.alert for one in store.kept() if one.deliveries and one.alert.id not in known]
        known.update(one.id for one in fresh)
        return [one.title for one in fresh]

    yield deliver
    records.close()


def test_a_second_outage_within_the_hour_is_told_with_its_end(told: Told) -> None:
    section = EndpointSection(name="prod", url="http://127.0.0.1:1", after_looks=2)
    down, up, health, found = Found(False, why="refused"), Found(True), EndpointHealth(), []
    for minute, one in enumerate([down, down, down, up, up, down, down, down, up]):
        alerts, health = judge(section, health, one, START + 60 * minute)
        found.append(told(minute, alerts))
    is_down, is_up = ["prod is not ready"], ["prod is ready again"]
    assert found == [[], is_down, [], is_up, [], [], is_down, [], is_up]


def test_who_finds_the_same_outage_on_another_machine_says_nothing_new(told: Told) -> None:
    section = EndpointSection(name="prod", url="http://127.0.0.1:1", after_looks=1)
    found = []
    for minute in (0, 1):  # neither has seen what the other saw
        alerts, _ = judge(section, EndpointHealth(), Found(False), START + 60 * minute)
        found.append(told(minute, alerts))
    assert found == [["prod is not ready"], []]


def test_another_problem_is_told_and_one_that_only_lasts_is_not(told: Told) -> None:
    section, health, found = EndpointSection(name="prod", url="http://127.0.0.1:1"), EndpointHealth(), []
    slow = "sums@production: its bundle has been read for {} s, and is not there yet"
    looks = [(slow.format(70),), (slow.format(130),), (slow.format(190), "it is drained"), ("it is drained",)]
    for minute, problems in enumerate(looks):
        alerts, health = judge(section, health, Found(True, problems), START + 60 * minute)
        found.append(len(told(minute, alerts)))
    assert found == [1, 0, 1, 0]


def record(**values: Any) -> dict[str, Any]:
    held = [{"name": "evaluation", "status": "failed"}]
    plain = {"name": "helper", "version": "1.2.0", "target": "production", "verdict": "NO-GO", "rules": held}
    return {**plain, "released": False, "override": None, **values}


def test_an_override_after_a_refusal_is_told_and_so_is_each_other(told: Told) -> None:
    insisted = record(released=True, override={"who": "mallory", "role": "on-call", "why": "hurry"})
    safety = record(rules=[{"name": "safety", "status": "failed"}])
    found = []
    for minute, one in enumerate([record(), record(), safety, insisted, insisted]):
        alert = alert_of_record(one, f"{minute:064x}", START + 60 * minute)
        assert alert is not None
        found.append(told(minute, [alert]))
    refused, let_in = (
        "NO-GO: helper@1.2.0 does not become production",
        "helper@1.2.0 became production although",
    )
    assert [one[0].startswith((refused, let_in)) if one else False for one in found] == [
        True, False, True, True, True,
    ], "of the same refusal by other figures nobody is told within the hour"  # fmt: skip


@pytest.mark.parametrize("outcome", ["succeeded", "no_gain", "failed"])
def test_what_came_of_an_order_is_told_however_soon(told: Told, outcome: Any) -> None:
    section = TriggersSection.model_validate({"triggers": "loop", "when": {"manual": True}})
    order = Order("loop-000001", "loop", 1, START, ("asked for by ada",), "", 0, dry_run=False)
    assert told(0, alerts_of(section, Decision(State(), order, ()), START)) == ["loop orders a retraining"]
    if outcome == "failed":
        ended = ended_badly(order.id, "the disk is full", START + 240)
    else:
        ended = ended_well(Retrained(order.id, outcome, "by the trial", [], "1.1.0"), START + 240)
    assert told(4, [ended]) == [ended.title]
    assert told(5, [ended]) == []


def test_a_limit_that_was_raised_is_told_anew(told: Told) -> None:
    found = []
    for minute, limit in enumerate((100, 100, 110)):
        section = MonthSection(money=limit, currency="EUR")
        found.append(len(told(minute, alerts_of_month(section, Spending(0.0, {"EUR": 90.0}), START))))
    assert found == [1, 0, 1]


def test_what_else_is_wrong_with_a_thing_is_told(told: Told) -> None:
    first, second = (
        Fault("sums", "1.0.0", "a file was changed"),
        Fault("sums", "1.0.0", "its key was revoked"),
    )
    found = []
    for minute, faults in enumerate([[first], [first], [first, second], [first, second], [second]]):
        found.append(len(told(minute, alerts_of_faults(faults, "/registry", START + 60 * minute))))
    assert found == [1, 0, 1, 0, 1]


def test_repetitions_are_told_with_the_next_of_their_own_state(told: Told) -> None:
    records = open_records()
    counted = []
    for minute, state in enumerate(["bad", "bad", "bad", "good", "bad", None, None]):
        told(minute, [an_alert(state=state, time=START + 60 * minute)])
    store = AlertStore(records.engine)
    told(90, [an_alert(time=START + 5_400)])
    counted = [one.repeats is not None for one in reversed(store.kept())]
    assert counted == [False, True, True, False, False, False, True, False]
    records.close()


def test_an_alert_that_was_raised_before_there_were_states_is_taken() -> None:
    values = an_alert().as_dict()
    del values["state"]
    assert alert_of(values).state is None

"""Who is told, when, and when it is tried again: decided from values alone, shown as tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from alert_receivers import an_alert
from hypothesis import given
from hypothesis import strategies as st

from raytrain.monitoring.alerts.routing import Told, next_try, route, told_at
from raytrain.monitoring.alerts.section import AlertsSection, QuietHours, RetrySection

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = QuietHours(start="22:00", end="07:00", timezone="Europe/Berlin")


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def settings(**values: Any) -> AlertsSection:
    hooks = [
        {"name": "team", "url_env": "TEAM"},
        {"name": "gate", "url_env": "GATE", "kinds": ["gate_refusal"], "at_least": "info"},
        {"name": "asleep", "url_env": "X", "at_least": "info", "quiet_hours": NIGHT.model_dump()},
    ]
    return AlertsSection.model_validate({"webhooks": hooks, **values})


@pytest.mark.parametrize(
    ("severity", "kind", "channels"),
    [
        ("critical", "run_failed", ["log", "team", "asleep"]),
        ("warning", "drift", ["log", "team", "asleep"]),
        ("info", "drift", ["log", "asleep"]),
        ("info", "gate_refusal", ["log", "gate", "asleep"]),
        ("info", "test", ["log", "team", "gate", "asleep"]),
    ],
)
def test_channels_are_told_what_they_want(severity: Any, kind: Any, channels: list[str]) -> None:
    found = route(an_alert(severity=severity, kind=kind), settings(), None, now=berlin("2026-03-02 12:00"))
    assert [one.channel for one in found.deliveries] == channels and found.repeats is None
    assert {one.due_at for one in found.deliveries} == {berlin("2026-03-02 12:00")}


@pytest.mark.parametrize(
    ("at", "severity", "before", "is_repeated"),
    [
        (1_000.0, "critical", None, False),
        (1_500.0, "critical", ("critical", 1_000.0), True),
        (1_500.0, "warning", ("critical", 1_000.0), True),
        (1_500.0, "critical", ("warning", 1_000.0), False),
        (4_599.0, "critical", ("critical", 1_000.0), True),
        (4_600.0, "critical", ("critical", 1_000.0), False),
        (900.0, "critical", ("critical", 1_000.0), True),
        (1_000.0, "critical", ("critical", 9_000_000.0), False),
        (1_500.0, "info", ("critical", 1_000.0, False), False),
    ],
    ids=[
        "first",
        "again",
        "milder",
        "graver",
        "still",
        "later",
        "a clock behind",
        "a clock set back by months",
        "another state",
    ],
)
def test_what_is_said_again_is_counted_and_not_told(
    at: float, severity: Any, before: tuple[Any, ...] | None, is_repeated: bool
) -> None:
    told = None if before is None else Told("first", before[1], before[0], *before[2:])
    found = route(an_alert(time=at, severity=severity), settings(), told, now=at)
    assert (found.repeats == "first") is is_repeated
    assert (not found.deliveries) is is_repeated


def test_a_test_is_never_a_repetition_and_waits_for_no_morning() -> None:
    now = berlin("2026-03-02 23:00")
    found = route(
        an_alert(kind="test", severity="info", time=now), settings(), Told("x", now, "critical"), now
    )
    assert {one.due_at for one in found.deliveries} == {now} and len(found.deliveries) == 4


@pytest.mark.parametrize(
    ("now", "severity", "until"),
    [
        ("2026-03-02 21:59", "warning", "2026-03-02 21:59"),
        ("2026-03-02 22:00", "warning", "2026-03-03 07:00"),
        ("2026-03-03 03:00", "warning", "2026-03-03 07:00"),
        ("2026-03-03 07:00", "warning", "2026-03-03 07:00"),
        ("2026-03-03 03:00", "critical", "2026-03-03 03:00"),
        ("2026-03-28 23:00", "warning", "2026-03-29 07:00"),
        ("2026-10-24 23:00", "warning", "2026-10-25 07:00"),
    ],
    ids=["before", "from then", "at night", "until then", "grave", "the clock goes forward", "and back"],
)
def test_in_quiet_hours_what_can_wait_waits_for_their_end(now: str, severity: Any, until: str) -> None:
    assert told_at(NIGHT, severity, berlin(now)) == berlin(until)


def test_quiet_hours_of_some_days_belong_to_the_day_on_which_they_start() -> None:
    weekend = QuietHours(start="22:00", end="07:00", days=["saturday"], timezone="Europe/Berlin", still=None)
    assert told_at(weekend, "critical", berlin("2026-03-07 23:00")) == berlin("2026-03-08 07:00")
    assert told_at(weekend, "critical", berlin("2026-03-08 06:00")) == berlin("2026-03-08 07:00")
    assert told_at(weekend, "critical", berlin("2026-03-08 23:00")) == berlin("2026-03-08 23:00")


@given(
    now=st.floats(1_700_000_000, 1_900_000_000),
    hours=st.tuples(st.times(), st.times()).filter(
        lambda one: one[0].strftime("%H:%M") != one[1].strftime("%H:%M")
    ),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"]),
)
def test_nothing_is_told_in_quiet_hours_and_nothing_waits_for_more_than_a_day(
    now: float, hours: tuple[Any, Any], zone: str
) -> None:
    start, end = (one.strftime("%H:%M") for one in hours)
    quiet = QuietHours(start=start, end=end, timezone=zone)
    until = told_at(quiet, "warning", now)
    assert now <= until <= now + 25 * 3600
    assert told_at(quiet, "warning", until) == until


def test_it_is_tried_again_later_each_time_and_given_up_at_last() -> None:
    retry = RetrySection(first_s=10, longest_s=300, give_up_after_s=86400)
    assert [next_try(retry, tries, 0.0, 100.0, draw=0.0) for tries in (1, 2, 3, 5, 6, 50, 5_000)] == [
        110.0, 120.0, 140.0, 260.0, 400.0, 400.0, 400.0,
    ]  # fmt: skip
    assert next_try(retry, 1, 0.0, 100.0, draw=1.0) == 107.5
    assert next_try(retry, 1, 0.0, 100.0, draw=0.0, asked_s=60) == 160.0
    assert next_try(retry, 1, 0.0, 100.0, draw=0.0, asked_s=1e9) == 400.0
    assert next_try(retry, 1, 0.0, 86399.0, draw=0.0) == 86409.0
    assert next_try(retry, 1, 0.0, 86400.0, draw=0.0) is None

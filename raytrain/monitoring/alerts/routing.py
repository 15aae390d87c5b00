"""Who is told of an alert, and when. Pure: what is known and the time come as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from raytrain.monitoring.alerts.alert import Alert, AlertKind, Severity, rank
from raytrain.monitoring.alerts.section import AlertsSection, QuietHours, RetrySection

LOG = "log"
"""Name of the channel that is always there."""
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Wanting(Protocol):
    """What a channel is told."""

    @property
    def at_least(self) -> Severity: ...
    @property
    def kinds(self) -> list[AlertKind]: ...


@dataclass(frozen=True)
class Told:
    """The last alert of the same kind and subject that was no repetition."""

    id: str
    time: float
    severity: Severity
    is_same: bool = True
    """It told of the same state."""


@dataclass(frozen=True)
class Delivery:
    """One alert to one channel."""

    channel: str
    due_at: float


@dataclass(frozen=True)
class Route:
    """repeats: the id of the alert that said the same; then nobody is told."""

    deliveries: Sequence[Delivery] = ()
    repeats: str | None = None


def route(alert: Alert, settings: AlertsSection, told: Told | None, now: float) -> Route:
    """Where it goes. A test goes everywhere at once."""
    if alert.kind != "test" and told is not None and is_repetition(alert, told, settings.repeat_after_s):
        return Route(repeats=told.id)
    deliveries = [Delivery(LOG, now)] if wants(settings.log, alert) else []
    for channel in (*settings.webhooks, *settings.emails):
        if wants(channel, alert):
            due_at = now if alert.kind == "test" else told_at(channel.quiet_hours, alert.severity, now)
            deliveries.append(Delivery(channel.name, due_at))
    return Route(tuple(deliveries))


def is_repetition(alert: Alert, told: Told, repeat_after_s: float) -> bool:
    """By the alerts' own times: what was found late is as old as it is. A clock that was set back counts as none."""
    is_soon = abs(alert.time - told.time) < repeat_after_s
    return told.is_same and is_soon and rank(alert.severity) <= rank(told.severity)


def wants(channel: Wanting, alert: Alert) -> bool:
    if alert.kind == "test":
        return True
    return rank(alert.severity) >= rank(channel.at_least) and (
        not channel.kinds or alert.kind in channel.kinds
    )


def told_at(quiet: QuietHours | None, severity: Severity, now: float) -> float:
    """`now`, or when the quiet hours end that it falls in."""
    if quiet is None or (quiet.still is not None and rank(severity) >= rank(quiet.still)):
        return now
    until = now
    # Two nights may touch each other.
    while (end := _end_of_quiet(quiet, until)) is not None and end > until and end < now + 8 * 86400:
        until = end
    return until


def _end_of_quiet(quiet: QuietHours, now: float) -> float | None:
    """Of the quiet hours that the moment lies in; None where it lies in none."""
    zone = quiet.zone or ZoneInfo("UTC")
    today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        if quiet.days is None or _DAYS[day.weekday()] in quiet.days:
            start, end = _span(quiet, day, zone)
            if start <= now < end:
                return end
    return None


def _span(quiet: QuietHours, day: date, zone: ZoneInfo) -> tuple[float, float]:
    """Of the hours that begin on this day. A time that a change of the clock leaves out is taken as the one after."""
    start, end = quiet.hours
    last = day if end > start else day + timedelta(days=1)
    return (
        datetime.combine(day, start, zone).timestamp(),
        datetime.combine(last, end, zone).timestamp(),
    )


def next_try(
    retry: RetrySection,
    num_tries: int,
    taken_at: float,
    now: float,
    draw: float,
    asked_s: float | None = None,
) -> float | None:
    """When a delivery is tried again that has failed so many times; None where it is given up.

    draw: from 0 to 1; up to a quarter of the wait comes off, so that what failed together is not tried together.
    asked_s: how long the server asks to be left alone (`Retry-After`); longer than `longest_s` it is not.
    """
    if now >= taken_at + retry.give_up_after_s:
        return None
    wait_s = min(retry.longest_s, retry.first_s * 2.0 ** min(num_tries - 1, 60)) * (1 - 0.25 * draw)
    return now + max(wait_s, min(asked_s or 0.0, retry.longest_s))

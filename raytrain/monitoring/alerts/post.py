"""What was raised is taken in, and what is due is delivered: the one place that acts on alerts."""

from __future__ import annotations

import random
import time as clock
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from raytrain.errors import ConfigError, PlatformError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.channels.channel import Channel, Failure
from raytrain.monitoring.alerts.channels.email import EmailChannel
from raytrain.monitoring.alerts.channels.log import LogChannel
from raytrain.monitoring.alerts.channels.webhook import WebhookChannel
from raytrain.monitoring.alerts.redaction import Redactor
from raytrain.monitoring.alerts.routing import next_try, route, told_at
from raytrain.monitoring.alerts.section import AlertsSection
from raytrain.monitoring.alerts.spool import spooled
from raytrain.monitoring.alerts.store import AlertStore, Waiting

Tell = Callable[[str], None]
"""Takes a line of progress for a person."""


@dataclass(frozen=True)
class Passed:
    """What a pass came to."""

    taken_in: int
    repeats: int
    """Of these."""
    sent: int
    failed: int


@dataclass(frozen=True)
class Post:
    """Several may work at the same time, on one machine or on many."""

    store: AlertStore
    settings: AlertsSection
    tell: Tell = lambda _: None
    now: Callable[[], float] = clock.time
    draw: Callable[[], float] = random.random

    def deliver(self, is_over: Callable[[], bool] = lambda: False) -> Passed:
        """One pass; a channel that hangs keeps no other waiting. `is_over` ends it after what is being delivered.

        Raises StorageError where the database cannot be used: what was raised stays where it is.
        """
        channels = channels_of(self.settings)
        redactor = redactor_of(channels)
        taken_in, repeats = self._take_in(redactor)
        with ThreadPoolExecutor(max_workers=len(channels), thread_name_prefix="raytrain-alerts") as pool:
            counts = list(pool.map(lambda one: self._drain(one, redactor, is_over), channels))
        return Passed(taken_in, repeats, sum(one[0] for one in counts), sum(one[1] for one in counts))

    def _take_in(self, redactor: Redactor) -> tuple[int, int]:
        """How many, and how many of them say again what was told."""
        num_taken = num_repeats = 0
        for place, raised in spooled():
            alert, now = redactor.alert(raised), self.now()
            decide = partial(route, alert, self.settings, now=now)
            found = self.store.take_in(alert, decide, now)
            place.unlink(
                missing_ok=True
            )  # after it is kept: a kill between the two takes it in twice, under one id
            if found is not None:
                num_taken += 1
                num_repeats += found.repeats is not None
        return num_taken, num_repeats

    def _drain(self, channel: Channel, redactor: Redactor, is_over: Callable[[], bool]) -> tuple[int, int]:
        """How many were delivered and how many failed; a server that cannot be reached is asked once a pass."""
        num_sent = num_failed = 0
        while not is_over() and (one := self.store.claim(channel.name, self.now())) is not None:
            if (due_at := self._held_until(one)) is not None:
                self.store.held_back(one, due_at)
                continue
            failure = attempt(channel, one.alert, one.num_repeats, redactor)
            if failure is None or failure.partly:
                num_sent += self.store.delivered(one, self.now(), None if failure is None else failure.why)
                continue
            num_failed += 1
            self._put_off(one, failure)
            if not failure.lasts:
                break
        return num_sent, num_failed

    def _held_until(self, one: Waiting) -> float | None:
        """The end of the channel's quiet hours, where it is in them that a try has come: the one before had failed, or
        nobody has delivered since."""
        channels = (*self.settings.webhooks, *self.settings.emails)
        quiet = next((channel.quiet_hours for channel in channels if channel.name == one.channel), None)
        now = self.now()
        if one.is_asked_for or one.alert.kind == "test":
            return None
        until = told_at(quiet, one.alert.severity, now)
        return until if until > now else None

    def _put_off(self, one: Waiting, failure: Failure) -> None:
        now, retry = self.now(), self.settings.retry
        asked_s = retry.longest_s if failure.lasts else failure.asked_s
        due_at = next_try(retry, one.num_tries, one.taken_at, now, self.draw(), asked_s)
        self.store.failed(one, failure.why, due_at, now)
        then = "it is given up" if due_at is None else f"tried again in {due_at - now:.0f} s"
        self.tell(f"{one.channel}: alert {one.alert.id[:12]} did not arrive: {failure.why}; {then}")


def attempt(channel: Channel, alert: Alert, num_repeats: int, redactor: Redactor) -> Failure | None:
    """One try; None where it arrived. What is wrong with the channel's secret is a failure as well."""
    try:
        failure = channel.send(alert, num_repeats)
    except PlatformError as error:
        failure = Failure(f"{error.line}; {error.fix}", lasts=True)
    except Exception as error:  # noqa: BLE001 - one alert that cannot be sent keeps no other from being sent
        failure = Failure(f"a fault of raytrain: {type(error).__name__}", lasts=True)
    if failure is None:
        return None
    return Failure(redactor.text(failure.why)[:500], failure.asked_s, failure.lasts, failure.partly)


def channels_of(settings: AlertsSection) -> list[Channel]:
    """The file's first."""
    return [
        LogChannel(settings.log),
        *(WebhookChannel(one) for one in settings.webhooks),
        *(EmailChannel(one) for one in settings.emails),
    ]


def channel_named(settings: AlertsSection, name: str) -> Channel:
    """Raises ConfigError where none is called so."""
    from raytrain.config.recipe import nearest

    channels = {one.name: one for one in channels_of(settings)}
    if name in channels:
        return channels[name]
    near = nearest(name, channels)
    raise ConfigError(
        f"there is no channel `{name}`",
        why=f"there are {', '.join(channels)}",
        fix=f"did you mean `{near}`?" if near else "name one of these",
    )


def redactor_of(channels: Sequence[Channel]) -> Redactor:
    """Knows the secrets of all channels, as far as they can be had."""
    known: list[str] = []
    for one in channels:
        try:
            known += one.secrets()
        except PlatformError:
            continue  # it is told of where the channel is used
    return Redactor(known)

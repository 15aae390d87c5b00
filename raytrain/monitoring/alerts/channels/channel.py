"""What every way to reach people does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from raytrain.monitoring.alerts.alert import Alert


@dataclass(frozen=True)
class Failure:
    """Why an alert did not arrive, without the secret of the channel."""

    why: str
    asked_s: float | None = None
    """How long the server asks to be left alone."""
    lasts: bool = False
    """It will fail again until somebody changes something."""
    partly: bool = False
    """Some have it, and would have it twice: it counts as delivered."""


class Channel(Protocol):
    """Called in one thread of one process at a time."""

    @property
    def name(self) -> str: ...

    def send(self, alert: Alert, num_repeats: int) -> Failure | None:
        """Deliver it once; None where it arrived. Ends within `asking.WHOLE_S`. Raises ConfigError or RefusedError
        where its secret cannot be had.

        num_repeats: how often the same was said since it was told before, without anybody being told.
        """

    def secrets(self) -> list[str]:
        """What must stand in no message. Raises ConfigError or RefusedError where it cannot be had."""


def told_as_json(alert: Alert, num_repeats: int) -> dict[str, Any]:
    """What programs get."""
    return {
        "version": 1,
        "source": "raytrain",
        "id": alert.id,
        "kind": alert.kind,
        "subject": alert.subject,
        "severity": alert.severity,
        "title": alert.title,
        "text": alert.text,
        "details": dict(alert.details),
        "time": _utc(alert.time),
        "repeats": num_repeats,
    }


def told_in_lines(alert: Alert, num_repeats: int) -> list[str]:
    """What people read below the title."""
    return [
        alert.text,
        "",
        *_details(alert.details),
        f"{alert.kind}, {alert.severity}, {_utc(alert.time)}",
        *([repeats_in_words(num_repeats)] if num_repeats else []),
        f"alert {alert.id}",
    ]


def repeats_in_words(num_repeats: int) -> str:
    return f"said again {num_repeats} times since it was told before"


def _details(details: Mapping[str, str]) -> list[str]:
    return [*(f"{key}: {value}" for key, value in details.items()), *([""] if details else [])]


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")

"""What people are to be told."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

AlertKind = Literal[
    "run_failed",
    "drift",
    "gate_refusal",
    "budget",
    "serving_health",
    "signature",
    "retraining",
    "watching",
    "test",
]
"""retraining: what triggers decided; watching: what is to be looked at cannot be; test: sent to try a channel."""
KINDS: tuple[AlertKind, ...] = get_args(AlertKind)
Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The mildest first."""

LONGEST_TITLE, LONGEST_TEXT, LONGEST_SUBJECT = 200, 4_000, 200
MOST_DETAILS, LONGEST_DETAIL = 20, 500
_LAST_TIME = 253_402_300_799.0
"""The end of the year 9999, in UTC: no calendar tells what is later."""


@dataclass(frozen=True)
class Alert:
    """`kind` and `subject` say what it is about, `state` what is so of it since: the same said again within some time
    is a repetition, and another state is news."""

    kind: AlertKind
    subject: str
    severity: Severity
    title: str
    """One line."""
    text: str
    """What happened, why, and what to do."""
    time: float
    """Seconds since the epoch."""
    details: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None
    """As one of a server says that it is down, and a later one that it is up. None: whatever is said of the subject."""
    event: str | None = None
    """Of what happened: whoever finds the same again, after a kill or on another machine, says nothing new by it."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def tidied(self, spare: int = 0) -> Alert:
        """As it is kept: of limited length, and nothing in it that cannot be shown.

        spare: characters that each text may have beyond that, for who will look once more for what must go."""
        details = list(self.details.items())[:MOST_DETAILS]
        return replace(
            self,
            subject=shortened(printable(self.subject), LONGEST_SUBJECT + spare),
            title=shortened(" ".join(printable(self.title).split()), LONGEST_TITLE + spare),
            text=shortened(printable(self.text), LONGEST_TEXT + spare),
            details={
                shortened(printable(key), 80 + spare): shortened(
                    printable(str(value)), LONGEST_DETAIL + spare
                )
                for key, value in details
            },
        )


def alert_of(values: Mapping[str, Any]) -> Alert:
    """As `as_dict` gave it. Raises ValueError where it is none."""
    known = Alert.__dataclass_fields__
    try:
        alert = Alert(
            **{"state": None, **{name: values[name] for name in known if name != "state" or name in values}}
        )
        is_one = alert.kind in KINDS and alert.severity in SEVERITIES and bool(alert.id)
        texts = (alert.subject, alert.title, alert.text, *alert.details, *alert.details.values(), alert.id)
        is_one &= all(isinstance(one, str) for one in texts) and _is_time(alert.time)
        is_one &= all(one is None or isinstance(one, str) for one in (alert.state, alert.event))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not is_one:
        raise ValueError("it is no alert")
    return alert


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= _LAST_TIME


def rank(severity: Severity) -> int:
    """Greater is graver."""
    return SEVERITIES.index(severity)


def shortened(text: str, longest: int) -> str:
    """At most so many characters, the last of which says that some are missing."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def printable(text: str) -> str:
    """As every database, mail and screen takes it: no half of a surrogate pair, no sign that steers a terminal."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return "".join(one if one.isprintable() or one in "\n\t" else " " for one in whole)

"""Servers that are asked whether they are ready."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.asking import Answer, ask
from raytrain.monitoring.alerts.observers.observer import Look
from raytrain.monitoring.alerts.secret_values import read_secret
from raytrain.monitoring.alerts.section import EndpointSection

_MOST_BYTES = 256 * 1024
_SECONDS = re.compile(r"\b[\d.]+ s\b")


@dataclass(frozen=True)
class Found:
    """What a server says of itself, or what is said of one that does not."""

    is_ready: bool
    problems: tuple[str, ...] = ()
    """What is not as it should be; told to operators alone."""
    why: str = ""


@dataclass(frozen=True)
class EndpointHealth:
    """What is known of a server between two looks."""

    num_failing: int = 0
    """Looks in a row that found it not ready."""
    since: float | None = None
    """The first of them."""
    is_told: bool = False
    problems: tuple[str, ...] = ()


class EndpointObserver:
    """See `Observer`."""

    every_s = 0.0

    def __init__(self, section: EndpointSection) -> None:
        self._section = section
        self.name = f"endpoint {section.name}"

    def look(self, seen: Any, now: float) -> Look:
        before = (
            EndpointHealth(**{**seen, "problems": tuple(seen["problems"])})
            if isinstance(seen, dict)
            else EndpointHealth()
        )
        alerts, standing = judge(self._section, before, ask_ready(self._section), now)
        return Look(alerts, asdict(standing))


def judge(
    section: EndpointSection, before: EndpointHealth, found: Found, now: float
) -> tuple[list[Alert], EndpointHealth]:
    """What is to be told. Pure."""
    if not found.is_ready:
        since = now if before.since is None else before.since
        failing = replace(before, num_failing=before.num_failing + 1, since=since)
        if before.is_told or failing.num_failing < section.after_looks:
            return [], failing
        return [_down(section, failing, found, now)], replace(failing, is_told=True)
    alerts = [_again(section, before, now)] if before.is_told else []
    known = {_lasting(one) for one in before.problems}
    fresh = [one for one in found.problems if _lasting(one) not in known]
    alerts += [_problems(section, fresh, found, now)] if fresh else []
    return alerts, EndpointHealth(problems=found.problems)


def _lasting(problem: str) -> str:
    """That it lasts longer than at the last look is no other problem."""
    return _SECONDS.sub("some s", problem)


def ask_ready(section: EndpointSection) -> Found:
    """Raises ConfigError or RefusedError where the key cannot be had."""
    key = read_secret(f"the key of {section.name}", section.key_env, section.key_file)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    url = section.url.rstrip("/") + "/ready"
    return found_in(ask(url, headers, ca_file=section.ca_file, most_bytes=_MOST_BYTES))


def found_in(answer: Answer) -> Found:
    """Pure."""
    if answer.unreached is not None:
        return Found(False, why=answer.unreached)
    try:
        told = json.loads(answer.content)
        is_ready, problems = told["is_ready"] is True, told.get("problems", [])
        problems = tuple(str(one) for one in problems)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Found(False, why=f"it answered {answer.status}, and not as raytrain's /ready does")
    return Found(is_ready, problems, "" if is_ready else "it says that it is not ready")


def _down(section: EndpointSection, standing: EndpointHealth, found: Found, now: float) -> Alert:
    told = [found.why, *found.problems, f"found so in {standing.num_failing} looks in a row"]
    return Alert(
        kind="serving_health",
        subject=section.name,
        severity="critical",
        title=f"{section.name} is not ready",
        text="\n".join(told),
        time=now,
        details={"url": section.url},
        state="down",
        event=f"{section.name} down {standing.since}",
    )


def _again(section: EndpointSection, before: EndpointHealth, now: float) -> Alert:
    minutes = (now - (before.since or now)) / 60
    return Alert(
        kind="serving_health",
        subject=section.name,
        severity="info",
        title=f"{section.name} is ready again",
        text=f"after {minutes:.0f} minutes",
        time=now,
        details={"url": section.url},
        state="ready",
        event=f"{section.name} again {before.since}",
    )


def _problems(section: EndpointSection, fresh: list[str], found: Found, now: float) -> Alert:
    return Alert(
        kind="serving_health",
        subject=f"{section.name} problems",
        severity="warning",
        title=f"{section.name} is ready, with problems",
        text="\n".join([*fresh, f"{len(found.problems)} in all: raytrain serve status --url {section.url}"]),
        time=now,
        details={"url": section.url},
        state="\n".join(sorted(map(_lasting, fresh))),
    )

"""No secret in an alert: what looks like one, or is known to be one, is taken out before anything is kept or sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from raytrain.monitoring.alerts.alert import Alert

if TYPE_CHECKING:
    from raytrain.evaluation.safety.findings import Detector

_SHORTEST_KNOWN = 6
"""In characters: what is shorter stands in many words."""
_WITHHELD = "(withheld: it could not be searched for secrets)"
_USER_INFO = re.compile(r"(?<=://)[^\s/'\"<>]*@")
_USER_INFO_WITH_SLASHES = re.compile(r"(?<![\w+.-])(?!https?:)([A-Za-z][\w+.-]*://)[^\s'\"<>]*@")
"""Of databases and queues, whose passwords are often not written as a URL has them."""
_SIGNED = re.compile(
    r"([?&](?:[\w-]*signature|[\w-]*token|sig|(?:api[_-]?)?key|[\w-]*secret|passw(?:or)?d|code)=)[^&\s'\"<>]+",
    re.IGNORECASE,
)
"""What lets whoever has the URL in: presigned ones of object stores, keys and tokens in a query."""
_BOT = re.compile(r"(/bot\d+:)[\w-]+")
_HOOK = re.compile(r"https?://[^\s/'\"<>]*(?:hook|discord|office)[^\s'\"<>]*", re.IGNORECASE)
"""URLs of webhooks, each of which is a secret whole."""
_LONG_PART = re.compile(r"(?<=/)(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}(?=[/?\s'\"]|$)")


class Redactor:
    """`known` are secrets themselves, such as URLs of webhooks and passwords."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        # The longest first: one may be part of another.
        self._known = sorted({one for one in known if len(one) >= _SHORTEST_KNOWN}, key=len, reverse=True)

    def alert(self, alert: Alert, spare: int = 0) -> Alert:
        """The same alert without secrets, wherever in it they stood, at most as long as is kept of one; spare: and so
        many characters more of each text."""
        details = {}
        for key, value in alert.details.items():
            # Together: a name such as `password` tells of what stands behind it.
            start = f"{self.text(key)}="
            both = self.text(f"{key}={value}")
            details[start[:-1]] = both.removeprefix(start) if both.startswith(start) else self.text(value)
        clean = replace(
            alert,
            subject=self.text(alert.subject),
            title=self.text(alert.title),
            text=self.text(alert.text),
            details=details,
            state=None if alert.state is None else self.text(alert.state),
        )
        return clean.tidied(spare)

    def text(self, text: str) -> str:
        for one in self._known:
            text = text.replace(one, "[secret]")
        text = _HOOK.sub("[URL of a webhook]", text)
        text = _USER_INFO_WITH_SLASHES.sub(r"\1[secret]@", text)
        text = _USER_INFO.sub("[secret]@", text)
        text = _SIGNED.sub(r"\1[secret]", text)
        text = _BOT.sub(r"\1[secret]", text)
        text = _without_found(text)
        return _in_urls(text)


def _in_urls(text: str) -> str:
    """In paths of URLs: what could be a key."""
    return re.sub(r"https?://\S+", lambda url: _LONG_PART.sub("[secret]", url[0]), text)


def _without_found(text: str) -> str:
    from raytrain.evaluation.safety.findings import outermost, scan

    result = scan(text, _detectors())
    if result.failures:
        return _WITHHELD
    for one in reversed(outermost(result.findings)):
        text = f"{text[: one.start]}[secret]{text[one.end :]}"
    return text


@cache
def _detectors() -> dict[str, Detector]:
    """By formats and by names. What is only random to the eye stays: digests and ids of runs are."""
    from raytrain.evaluation.safety.findings import build_detectors

    return build_detectors(("secrets",))

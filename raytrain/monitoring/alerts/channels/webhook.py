"""Alerts posted to a URL. The URL is the secret: nothing that is told of a failure holds more than its host."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from raytrain.monitoring.alerts.alert import Alert, printable
from raytrain.monitoring.alerts.asking import Answer, ask
from raytrain.monitoring.alerts.channels.channel import Failure, told_as_json
from raytrain.monitoring.alerts.channels.slack import slack_message
from raytrain.monitoring.alerts.secret_values import read_secret
from raytrain.monitoring.alerts.section import WebhookSection

_ON_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_LATER = (408, 425, 429)
"""Answers below 500 that may be another one later."""
_LONGEST_TOLD = 200


class WebhookChannel:
    """See `Channel`."""

    def __init__(self, section: WebhookSection) -> None:
        self._section = section
        self.name = section.name

    def secrets(self) -> list[str]:
        url = self._url()
        parts = urlsplit(url)
        return [url, *(one for one in (parts.path, parts.query, parts.password) if one and len(one) > 1)]

    def send(self, alert: Alert, num_repeats: int) -> Failure | None:
        url = self._url()
        fault = _fault_of(url, allow_http=self._section.allow_http)
        if fault is not None:
            return Failure(fault, lasts=True)
        told = (slack_message if self._section.format == "slack" else told_as_json)(alert, num_repeats)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        headers["Idempotency-Key"] = alert.id  # the same in every try
        body = json.dumps(told).encode()
        return judged(ask(url, headers, body=body, ca_file=self._section.ca_file))

    def _url(self) -> str:
        section = self._section
        return read_secret(f"the URL of {self.name}", section.url_env, section.url_file) or ""


def _fault_of(url: str, *, allow_http: bool) -> str | None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url or any(one.isspace() for one in url):
        return "what stands where its URL is to be is no URL that begins with https://"
    if parts.scheme == "http" and parts.hostname not in _ON_THIS_MACHINE and not allow_http:
        return f"{parts.hostname} would get it in clear: take https://, or allow it by `allow_http: true`"
    return None


def judged(answer: Answer) -> Failure | None:
    """Pure."""
    if answer.unreached is not None:
        return Failure(answer.unreached)
    status = answer.status
    if 200 <= status < 300:
        return None
    asked = answer.headers.get("retry-after", "")
    asked_s = float(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else None
    told = " ".join(printable(answer.content.decode("utf-8", "replace")).split())[:_LONGEST_TOLD]
    why = f"it answered {status}" + (f": {told}" if told else "")
    if 300 <= status < 400:
        why = f"it answered {status}, which sends elsewhere; give the URL where it is"
    return Failure(why, asked_s, lasts=status < 500 and status not in _LATER)

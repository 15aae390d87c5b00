"""An alert as Slack's incoming webhooks take it: blocks, within Slack's limits, and a text for notifications."""

from __future__ import annotations

from typing import Any

from raytrain.monitoring.alerts.alert import Alert, Severity, shortened
from raytrain.monitoring.alerts.channels.channel import repeats_in_words

_HEADER, _TEXT, _FIELD, _FIELDS, _CONTEXT = 150, 3_000, 2_000, 10, 2_000
"""Most characters of each, and most fields of a section."""
_SIGNS: dict[Severity, str] = {
    "info": ":information_source:",
    "warning": ":warning:",
    "critical": ":rotating_light:",
}


def slack_message(alert: Alert, num_repeats: int) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": shortened(alert.title, _HEADER) or alert.kind},
        }
    ]
    if alert.text.strip():
        blocks.append({"type": "section", "text": _mrkdwn(alert.text, _TEXT)})
    details = list(alert.details.items())
    for start in range(0, len(details), _FIELDS):
        fields = [_field(key, value) for key, value in details[start : start + _FIELDS]]
        blocks.append({"type": "section", "fields": fields})
    # Slack shows the time in the reader's own zone; what stands behind the bar is for who cannot.
    told = [f"{_SIGNS[alert.severity]} {alert.severity} · {alert.kind}"]
    told.append(f"<!date^{int(alert.time)}^{{date_short_pretty}} {{time_secs}}|{int(alert.time)}>")
    told += [repeats_in_words(num_repeats)] if num_repeats else []
    told.append(f"alert {alert.id[:12]}")
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(told)[:_CONTEXT]}]})
    return {"text": escaped(f"[{alert.severity}] {alert.title}", _TEXT), "blocks": blocks}


def _field(key: str, value: str) -> dict[str, str]:
    bold = f"*{escaped(key, 100)}*\n"
    return {"type": "mrkdwn", "text": bold + escaped(value, _FIELD - len(bold))}


def _mrkdwn(text: str, longest: int) -> dict[str, str]:
    return {"type": "mrkdwn", "text": escaped(text, longest)}


def escaped(text: str, longest: int) -> str:
    """At most so long once its three signs are written as Slack wants them, and none of these cut in two."""
    parts: list[str] = []
    left = longest
    for position, one in enumerate(text):
        part = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(one, one)
        is_last = position == len(text) - 1
        if len(part) > left - (0 if is_last else 1):
            parts.append("…")
            break
        parts.append(part)
        left -= len(part)
    return "".join(parts)

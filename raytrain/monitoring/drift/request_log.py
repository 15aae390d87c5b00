"""The rows that are watched, from a server's request log: an answer a row, with what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raytrain.monitoring import request_log as files
from raytrain.monitoring.drift.rows import Rows, in_order
from raytrain.monitoring.drift.section import ColumnKind
from raytrain.monitoring.drift.texts import as_text
from raytrain.monitoring.times import as_seconds

KINDS: dict[str, ColumnKind] = {
    "prompt": "text", "answer": "answer", "route": "categorical", "key": "categorical", "finish": "categorical",
    "temperature": "numeric", "prompt_tokens": "numeric", "completion_tokens": "numeric",
    "first_piece_s": "numeric", "duration_s": "numeric", "approval": "numeric", "corrected": "numeric",
    "top_1": "numeric", "top_5": "numeric", "entropy": "numeric",
}  # fmt: skip
"""What is compared of each answer. approval: 1 = thumb up, 0 = down. corrected: 1 where a better answer was given."""
_BESIDE: dict[str, ColumnKind] = {"request_id": "ignore", "digest": "ignore", "model": "ignore"}
_NUMBERS = (
    "temperature", "prompt_tokens", "completion_tokens", "first_piece_s", "duration_s", "top_1", "top_5", "entropy"
)  # fmt: skip


def read_request_log(folder: Path, model: str | None, now: float, since: float | None = None) -> Rows:
    """Files that cannot be read, and a folder that is not there, are told and left out.

    since: rows up to then may be missing, so that not all of a long log is read.
    """
    log = files.read_request_log(folder, since)
    answers, notes = log.answers(), log.notes
    if model is not None:
        answers = [one for one in answers if str(one[0].get("model") or "").partition("@")[0] == model]
    rows = [_row(request, feedback or {}) for request, feedback in answers]
    early = sum(one["is_early"] for one in rows)
    if early:
        notes.append(f"clock skew: {early:,} answers have feedback from before they were written; it is kept")
    columns = {name: [one[name] for one in rows] for name in (*KINDS, *_BESIDE)}
    found = in_order(columns, [as_seconds(one.get("at")) for one, _ in answers], notes, now)
    found.kinds = {**KINDS, **_BESIDE}
    return found


def _row(request: dict[str, Any], feedback: dict[str, Any]) -> dict[str, Any]:
    rating = feedback.get("rating")
    finish = request.get("finish")
    return {
        **{name: request.get(name) for name in (*_NUMBERS, "route", "key", "request_id", "digest", "model")},
        "prompt": as_text(request.get("prompts")),
        "answer": as_text(request.get("answers")),
        "finish": finish[0] if isinstance(finish, list) and finish else None,
        "approval": {"up": 1.0, "down": 0.0}.get(str(rating)),
        "corrected": float(bool(feedback.get("correction"))) if feedback else None,
        "is_early": bool(feedback) and as_seconds(feedback.get("at")) < as_seconds(request.get("at")),
    }

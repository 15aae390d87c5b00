"""The rows that are watched, from a server's request log: an answer a row, with what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raytrain.monitoring.drift.rows import Rows, as_seconds, in_order
from raytrain.monitoring.drift.section import ColumnKind
from raytrain.monitoring.drift.texts import as_text

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


def read_request_log(folder: Path, model: str | None, now: float) -> Rows:
    """Files that cannot be read, and a folder that is not there, are told and left out."""
    requests, notes = _read_kind(folder, "requests")
    feedback, told = _read_kind(folder, "feedback")
    notes += told
    if not folder.is_dir():
        notes.append(f"there is no folder {folder}: no server has written a log there yet")
    if model is not None:
        requests = [one for one in requests if str(one.get("model") or "").partition("@")[0] == model]
    of_request: dict[tuple[str, Any], dict[str, Any]] = {}
    for one in sorted(feedback, key=lambda one: as_seconds(one.get("at"))):
        known = of_request.setdefault((str(one.get("request_id")), one.get("key")), {})
        known.update({name: one.get(name) for name in ("rating", "correction", "at") if one.get(name)})
    rows = [_row(one, of_request.get((str(one.get("request_id")), one.get("key")), {})) for one in requests]
    early = sum(one["is_early"] for one in rows)
    if early:
        notes.append(f"clock skew: {early:,} answers have feedback from before they were written; it is kept")
    columns = {name: [one[name] for one in rows] for name in (*KINDS, *_BESIDE)}
    found = in_order(columns, [as_seconds(one.get("at")) for one in requests], notes, now)
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


def _read_kind(folder: Path, kind: str) -> tuple[list[dict[str, Any]], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for path in sorted(folder.glob(f"{kind}-*.parquet")):
        try:
            rows += pq.ParquetFile(path).read().to_pylist()
        except (OSError, pa.ArrowException, ValueError) as error:
            # Gone since it was listed, half copied, or of another kind.
            broken.append(f"{path.name} ({type(error).__name__})")
    return rows, _told(broken)


def _told(broken: Sequence[str]) -> list[str]:
    if not broken:
        return []
    more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
    return [f"files of the log are left out, as they cannot be read: {', '.join(broken[:5])}{more}"]

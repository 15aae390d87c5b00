"""One JSON line for each request: who asked what, and what became of it. Never prompts, answers or keys."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from raytrain.serving.http.record import Record

ACCESS_LOG = "raytrain.serving.access"
"""Name of the logger, for whoever wants the lines elsewhere."""


def open_access_log() -> logging.Logger:
    """Lines go to stdout, each by itself, unless somebody has given the logger another handler."""
    logger = logging.getLogger(ACCESS_LOG)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def line_of(record: Record) -> str:
    usage, finishes = record.usage, record.finishes.values()
    told: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": record.id,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "error": record.error,
        "key": None if record.key is None else record.key.name,
        "model": record.model,
        "served": None if record.served is None else record.served.model,
        "digest": None if record.served is None else record.served.digest,
        "trial": None if record.served is None else record.served.arm,
        "is_stream": record.is_stream,
        "duration_s": round(record.elapsed_s, 4),
        "first_piece_s": None if record.first_piece_s is None else round(record.first_piece_s, 4),
        "queue_s": round(max(one.queue_s for one in finishes), 4) if finishes else None,
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "finish": sorted({one.reason for one in finishes}),
    }
    return json.dumps(told)

"""Until when pairs may come that belong before some that are known: each ingress writes its rows in its own time, so
that those of one second are not in the log at one time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from raytrain.serving.http.section import RequestLogSection
from raytrain.serving.trials.rows import Pair, Row

_MARGIN_S = 10.0
"""For the writing itself, and for clocks of several machines that differ."""


def waits_until(last: Pair, rows: Sequence[Row], now: float) -> float | None:
    """Seconds since 1970 until which a pair of before `last` may be written; None where none will be.

    That is so once every ingress has written something later, which it does in order, and at the latest when all have
    had the time to. rows: of the trial, by time.
    """
    by = last.production.get("ingress")
    latest: dict[str | None, datetime] = {one.get("ingress"): one["at"] for one in rows}
    at = last.production["at"]
    # Rows of a process that does not say which it is, or of how many, were written by nobody knows whom.
    num_ingresses = max(one.get("num_ingresses") or len(latest) + 1 for one in rows)
    others = [one for ingress, one in latest.items() if ingress != by]
    if len(latest) >= num_ingresses and all(one > at for one in others):
        return None
    return side_waits_until(at, rows, now)


def side_waits_until(at: datetime, rows: Sequence[Row], now: float) -> float | None:
    """The same of all that belongs before `at`, thumbs among it, which are written when it is time for it alone."""
    flush_s = max(one.get("flush_s") or RequestLogSection().flush_s for one in rows)
    until = float(at.timestamp()) + flush_s + _MARGIN_S
    return until if now < until else None

"""Moments as logs and tables write them."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any


def as_seconds(value: Any) -> float:
    """Since the epoch; NaN where it is no time. A time without a zone is UTC."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
        if isinstance(value, bool):
            return math.nan
        if isinstance(value, int | float):
            return float(value)
    except (ValueError, OverflowError, OSError):
        pass
    return math.nan

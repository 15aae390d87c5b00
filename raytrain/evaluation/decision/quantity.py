"""How numbers are told to people: shares of a score as points, chances, times and memory with their units."""

from __future__ import annotations

import math
from typing import Literal

from raytrain.evaluation.statistics.power import needs_about

Unit = Literal["points", "points at least", "p-value", "power", "items", "share", "ms", "MB"]


def tell(value: float | None, unit: Unit) -> str:
    """A number with its unit; what is not known is a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "points":
        return f"{points(value)} points"
    if unit == "points at least":
        return f"at least {points(value)} points"
    if unit == "p-value":
        return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
    if unit == "power":
        return f"{100 * value:.0f} % power"
    if unit == "items":
        return f"{value:+,.0f} items"
    if unit == "share":
        return f"{100 * value:.3g} %"
    return f"{value:,.0f} {unit}"


def points(share: float) -> str:
    """Hundredths with a sign; nothing is +0.0 from either side."""
    rounded = round(100 * share, 1)
    return f"{rounded if rounded else 0.0:+.1f}"


def plain_points(share: float) -> str:
    """Hundredths of a limit: 3, 2.5."""
    return f"{100 * share:.10g} " + ("point" if round(100 * share, 9) == 1 else "points")


def counted(number: int, noun: str) -> str:
    """1 item, 2 items."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def needs(num_items: int | None) -> str:
    """The end of `cannot tell`."""
    return "" if num_items is None else needs_about(num_items)

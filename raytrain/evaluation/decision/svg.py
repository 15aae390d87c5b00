"""Pieces of plots as SVG, drawn by hand: no clock and no random id is in them, and their colours follow the page's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from raytrain.evaluation.decision.marked_text import as_html

WIDTH = 460.0
"""On a telephone its letters are still read."""
MARGIN = 8.0


@dataclass(frozen=True)
class Scale:
    """From a figure to a place on the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clamped(self, value: float) -> float:
        return self(min(self.high, max(self.low, value)))


def padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or max(0.01, abs(high) * 0.1)
    return low - room, high + room


def axis(x: Scale, low: float, high: float, top: float, title: str, *, signed: bool = True) -> list[str]:
    """Ticks at round numbers; shares are told in points."""
    factor = 100.0 if signed else 1.0
    parts = [f'<path class="axis-line" d="M{x.start} {top}H{x.end}"/>']
    for value in ticks(low * factor, high * factor):
        text = f"{value:+g}" if signed and value else f"{value:g}"
        place = x(value / factor)
        parts.append(
            f'<path class="axis-line" d="M{place:.1f} {top}v5"/>'
            f'<text class="axis middle" x="{place:.1f}" y="{top + 18:.1f}">{text}</text>'
        )
    middle = (x.start + x.end) / 2
    parts.append(f'<text class="axis middle" x="{middle:.1f}" y="{top + 36:.1f}">{title}</text>')
    return parts


def ticks(low: float, high: float) -> list[float]:
    """At most 7, at multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def mark(x: float, top: float, bottom: float, kind: str, label: str, side: str = "") -> str:
    """`side`: end = the label stands to the left of its line."""
    text = f'<text class="axis {side}" x="{x:.1f}" y="{top - 4:.1f}">{as_html(label)}</text>' if label else ""
    return f'<path class="{kind}" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>{text}'


def svg(parts: Iterable[str], height: float, label: str, width: float = WIDTH) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="{as_html(label)}">{"".join(parts)}</svg>'


def short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

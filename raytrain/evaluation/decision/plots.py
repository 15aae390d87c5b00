"""Plots as SVG, drawn by hand: no clock and no random id is in them, and their colours follow the page's.

All are 460 wide, so that on a telephone their letters are still read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raytrain.evaluation.decision.flips import FlipCount
from raytrain.evaluation.decision.lengths import LengthBin, Lengths
from raytrain.evaluation.decision.marked_text import as_html
from raytrain.evaluation.decision.quantity import points

_WIDTH = 460.0
_MARGIN = 8.0


@dataclass(frozen=True)
class GainRow:
    """One line of the forest plot; shares of the score."""

    name: str
    gain: float
    low: float
    high: float
    word: str
    is_overall: bool = False


def forest(rows: Sequence[GainRow], min_gain: float, max_loss: float | None) -> str:
    """Gains with intervals, one below the other; lines at nothing, at the gain asked for and at the loss ruled out."""
    marks = [0.0, min_gain] + ([] if max_loss is None else [-max_loss])
    ends = [end for row in rows for end in (row.low, row.high, row.gain) if math.isfinite(end)] + marks
    low, high = _padded(min(ends), max(ends))
    x = _scale(low, high, _MARGIN, _WIDTH - _MARGIN)
    row_height, top = 46.0, 26.0
    bottom = top + row_height * len(rows)
    parts = [_mark(x(0.0), top - 8, bottom, "zero", "no change", "end" if x(0.0) > 90 else "")]
    if x(min_gain) - x(0.0) > (12 if x(0.0) > 90 else 80):
        parts.append(_mark(x(min_gain), top - 8, bottom, "asked", f"{points(min_gain)} asked"))
    else:
        parts.append(_mark(x(min_gain), top - 8, bottom, "asked", ""))
    if max_loss is not None:
        parts.append(_mark(x(-max_loss), top - 8, bottom, "loss", ""))
    for i, row in enumerate(rows):
        parts.append(_gain_row(row, x, top + i * row_height))
    parts += _axis(x, low, high, bottom + 4, "gain in points")
    return _svg(parts, bottom + 46, "Gains with their intervals, suite by suite")


def _gain_row(row: GainRow, x: _Scale, top: float) -> str:
    middle = top + 32.0
    left, right = x.clamped(row.low), x.clamped(row.high)
    interval = f"{points(row.gain)} ({_end(row.low)} to {_end(row.high)})"
    if row.is_overall:
        centre = x.clamped(row.gain)
        shape = (
            f'<path class="dot {_class(row.word)}" d="M{left:.1f} {middle:.1f}L{centre:.1f} {middle - 8:.1f}'
            f'L{right:.1f} {middle:.1f}L{centre:.1f} {middle + 8:.1f}Z"/>'
        )
    else:
        shape = (
            f'<path class="bar {_class(row.word)}" d="M{left:.1f} {middle:.1f}H{right:.1f}'
            f'M{left:.1f} {middle - 5:.1f}v10M{right:.1f} {middle - 5:.1f}v10"/>'
            f'<circle class="dot {_class(row.word)}" cx="{x.clamped(row.gain):.1f}" cy="{middle:.1f}" r="5"/>'
        )
    strong = " strong" if row.is_overall else ""
    return (
        f'<text class="name{strong}" x="{_MARGIN}" y="{top + 14:.1f}">{as_html(_short(row.name, 28))}</text>'
        f'<text class="figure end{strong}" x="{_WIDTH - _MARGIN}" y="{top + 14:.1f}">{interval}</text>{shape}'
    )


def flips_by_category(counts: Sequence[FlipCount], most: int) -> str:
    """Items lost to the left, won to the right; a bar of `most` items is the longest."""
    centre, reach, row_height = _WIDTH / 2, _WIDTH / 2 - 46.0, 44.0
    parts = [
        f'<text class="axis end" x="{centre - 8}" y="12">lost</text>'
        f'<text class="axis" x="{centre + 8}" y="12">won</text>'
    ]
    for i, one in enumerate(counts):
        top = 22.0 + i * row_height
        lost, won = reach * one.num_lost / most, reach * one.num_won / most
        name = one.suite if one.category is None else f"{one.suite} · {one.category}"
        parts.append(
            f'<text class="name" x="{_MARGIN}" y="{top + 12:.1f}">{as_html(_short(name, 44))}</text>'
            f'<text class="axis end" x="{_WIDTH - _MARGIN}" y="{top + 12:.1f}">of {one.num_items:,}</text>'
            f'<rect class="lost" x="{centre - lost:.1f}" y="{top + 18:.1f}" width="{lost:.1f}" height="16"/>'
            f'<rect class="won" x="{centre:.1f}" y="{top + 18:.1f}" width="{won:.1f}" height="16"/>'
            f'<text class="figure end" x="{centre - lost - 5:.1f}" y="{top + 31:.1f}">{one.num_lost:,}</text>'
            f'<text class="figure" x="{centre + won + 5:.1f}" y="{top + 31:.1f}">{one.num_won:,}</text>'
        )
    bottom = 22.0 + len(counts) * row_height
    parts.insert(0, f'<path class="zero" d="M{centre} 16V{bottom:.1f}"/>')
    return _svg(parts, bottom + 6, "Items won and lost by category")


def length_and_score(lengths: Lengths) -> str:
    """Mean score of answers of about the same length, for both models."""
    both = (*lengths.baseline, *lengths.candidate)
    low, high = min(one.mean_tokens for one in both), max(one.mean_tokens for one in both)
    low, high = _padded(low, high)
    left, top, bottom = 44.0, 34.0, 214.0
    x, y = _scale(max(0.0, low), high, left, _WIDTH - _MARGIN - 8), _scale(0.0, 1.0, bottom, top)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<path class="grid" d="M{left} {y(share):.1f}H{_WIDTH - _MARGIN}"/>'
            f'<text class="axis end" x="{left - 6}" y="{y(share) + 4:.1f}">{100 * share:.0f} %</text>'
        )
    for name, bins in (("baseline", lengths.baseline), ("candidate", lengths.candidate)):
        parts.append(_curve(name, bins, x, y))
    for name, place in (("baseline", left + 6), ("candidate", left + 106)):
        parts.append(
            f'<circle class="{name}" cx="{place}" cy="12" r="5"/><text x="{place + 10}" y="16">{name}</text>'
        )
    parts += _axis(x, max(0.0, low), high, bottom + 4, "tokens of the answer", signed=False)
    return _svg(parts, bottom + 46, "Score by length of the answer")


def _curve(name: str, bins: Iterable[LengthBin], x: _Scale, y: _Scale) -> str:
    places = [(x(one.mean_tokens), y.clamped(one.score), one) for one in bins]
    line = "M" + "L".join(f"{across:.1f} {up:.1f}" for across, up, _ in places)
    dots = "".join(
        f'<circle class="{name}" cx="{across:.1f}" cy="{up:.1f}" r="5"><title>{name}: {one.num_items:,} answers of '
        f"{one.low:,} to {one.high:,} tokens, score {100 * one.score:.1f} %</title></circle>"
        for across, up, one in places
    )
    return f'<path class="curve {name}" d="{line}"/>{dots}'


@dataclass(frozen=True)
class _Scale:
    """From a figure to a place on the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clamped(self, value: float) -> float:
        return self(min(self.high, max(self.low, value)))


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    return _Scale(low, high, start, end)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or max(0.01, abs(high) * 0.1)
    return low - room, high + room


def _axis(x: _Scale, low: float, high: float, top: float, title: str, *, signed: bool = True) -> list[str]:
    """Ticks at round numbers; shares are told in points."""
    factor = 100.0 if signed else 1.0
    parts = [f'<path class="axis-line" d="M{x.start} {top}H{x.end}"/>']
    for value in _ticks(low * factor, high * factor):
        text = f"{value:+g}" if signed and value else f"{value:g}"
        place = x(value / factor)
        parts.append(
            f'<path class="axis-line" d="M{place:.1f} {top}v5"/>'
            f'<text class="axis middle" x="{place:.1f}" y="{top + 18:.1f}">{text}</text>'
        )
    middle = (x.start + x.end) / 2
    parts.append(f'<text class="axis middle" x="{middle:.1f}" y="{top + 36:.1f}">{title}</text>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """At most 7, at multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _mark(x: float, top: float, bottom: float, kind: str, label: str, side: str = "") -> str:
    """`side`: end = the label stands to the left of its line."""
    text = f'<text class="axis {side}" x="{x:.1f}" y="{top - 4:.1f}">{as_html(label)}</text>' if label else ""
    return f'<path class="{kind}" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>{text}'


def _svg(parts: Iterable[str], height: float, label: str) -> str:
    size = f'viewBox="0 0 {_WIDTH:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="{as_html(label)}">{"".join(parts)}</svg>'


def _end(value: float) -> str:
    return points(value) if math.isfinite(value) else "open"


def _class(word: str) -> str:
    return "unknown" if word == "cannot tell" else word


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

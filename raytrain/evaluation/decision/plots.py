"""The plots of a decision, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raytrain.evaluation.decision.flips import FlipCount
from raytrain.evaluation.decision.lengths import LengthBin, Lengths
from raytrain.evaluation.decision.marked_text import as_html
from raytrain.evaluation.decision.quantity import points
from raytrain.evaluation.decision.svg import MARGIN, WIDTH, Scale, axis, mark, padded, short, svg


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
    low, high = padded(min(ends), max(ends))
    x = Scale(low, high, MARGIN, WIDTH - MARGIN)
    row_height, top = 46.0, 26.0
    bottom = top + row_height * len(rows)
    parts = [mark(x(0.0), top - 8, bottom, "zero", "no change", "end" if x(0.0) > 90 else "")]
    if x(min_gain) - x(0.0) > (12 if x(0.0) > 90 else 80):
        parts.append(mark(x(min_gain), top - 8, bottom, "asked", f"{points(min_gain)} asked"))
    else:
        parts.append(mark(x(min_gain), top - 8, bottom, "asked", ""))
    if max_loss is not None:
        parts.append(mark(x(-max_loss), top - 8, bottom, "loss", ""))
    for i, row in enumerate(rows):
        parts.append(_gain_row(row, x, top + i * row_height))
    parts += axis(x, low, high, bottom + 4, "gain in points")
    return svg(parts, bottom + 46, "Gains with their intervals, suite by suite")


def _gain_row(row: GainRow, x: Scale, top: float) -> str:
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
        f'<text class="name{strong}" x="{MARGIN}" y="{top + 14:.1f}">{as_html(short(row.name, 28))}</text>'
        f'<text class="figure end{strong}" x="{WIDTH - MARGIN}" y="{top + 14:.1f}">{interval}</text>{shape}'
    )


def flips_by_category(counts: Sequence[FlipCount], most: int) -> str:
    """Items lost to the left, won to the right; a bar of `most` items is the longest."""
    centre, reach, row_height = WIDTH / 2, WIDTH / 2 - 46.0, 44.0
    parts = [
        f'<text class="axis end" x="{centre - 8}" y="12">lost</text>'
        f'<text class="axis" x="{centre + 8}" y="12">won</text>'
    ]
    for i, one in enumerate(counts):
        top = 22.0 + i * row_height
        lost, won = reach * one.num_lost / most, reach * one.num_won / most
        name = one.suite if one.category is None else f"{one.suite} · {one.category}"
        parts.append(
            f'<text class="name" x="{MARGIN}" y="{top + 12:.1f}">{as_html(short(name, 44))}</text>'
            f'<text class="axis end" x="{WIDTH - MARGIN}" y="{top + 12:.1f}">of {one.num_items:,}</text>'
            f'<rect class="lost" x="{centre - lost:.1f}" y="{top + 18:.1f}" width="{lost:.1f}" height="16"/>'
            f'<rect class="won" x="{centre:.1f}" y="{top + 18:.1f}" width="{won:.1f}" height="16"/>'
            f'<text class="figure end" x="{centre - lost - 5:.1f}" y="{top + 31:.1f}">{one.num_lost:,}</text>'
            f'<text class="figure" x="{centre + won + 5:.1f}" y="{top + 31:.1f}">{one.num_won:,}</text>'
        )
    bottom = 22.0 + len(counts) * row_height
    parts.insert(0, f'<path class="zero" d="M{centre} 16V{bottom:.1f}"/>')
    return svg(parts, bottom + 6, "Items won and lost by category")


def length_and_score(lengths: Lengths) -> str:
    """Mean score of answers of about the same length, for both models."""
    both = (*lengths.baseline, *lengths.candidate)
    low, high = min(one.mean_tokens for one in both), max(one.mean_tokens for one in both)
    low, high = padded(low, high)
    left, top, bottom = 44.0, 34.0, 214.0
    x, y = Scale(max(0.0, low), high, left, WIDTH - MARGIN - 8), Scale(0.0, 1.0, bottom, top)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<path class="grid" d="M{left} {y(share):.1f}H{WIDTH - MARGIN}"/>'
            f'<text class="axis end" x="{left - 6}" y="{y(share) + 4:.1f}">{100 * share:.0f} %</text>'
        )
    for name, bins in (("baseline", lengths.baseline), ("candidate", lengths.candidate)):
        parts.append(_curve(name, bins, x, y))
    for name, place in (("baseline", left + 6), ("candidate", left + 106)):
        parts.append(
            f'<circle class="{name}" cx="{place}" cy="12" r="5"/><text x="{place + 10}" y="16">{name}</text>'
        )
    parts += axis(x, max(0.0, low), high, bottom + 4, "tokens of the answer", signed=False)
    return svg(parts, bottom + 46, "Score by length of the answer")


def _curve(name: str, bins: Iterable[LengthBin], x: Scale, y: Scale) -> str:
    places = [(x(one.mean_tokens), y.clamped(one.score), one) for one in bins]
    line = "M" + "L".join(f"{across:.1f} {up:.1f}" for across, up, _ in places)
    dots = "".join(
        f'<circle class="{name}" cx="{across:.1f}" cy="{up:.1f}" r="5"><title>{name}: {one.num_items:,} answers of '
        f"{one.low:,} to {one.high:,} tokens, score {100 * one.score:.1f} %</title></circle>"
        for across, up, one in places
    )
    return f'<path class="curve {name}" d="{line}"/>{dots}'


def _end(value: float) -> str:
    return points(value) if math.isfinite(value) else "open"


def _class(word: str) -> str:
    return "unknown" if word == "cannot tell" else word

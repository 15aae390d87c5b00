"""The plots of a drift report, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from raytrain.evaluation.decision.marked_text import as_html
from raytrain.evaluation.decision.svg import MARGIN, WIDTH, Scale, short, svg
from raytrain.monitoring.drift.judged import Past, told_time
from raytrain.monitoring.drift.picture import Bar

_LABELS_END = 150.0


def then_and_now(name: str, bars: Sequence[Bar]) -> str:
    """A pair of bars for each bin: of the reference, and of the window below it."""
    longest = max(max(one.then, one.now) for one in bars) or 1.0
    x = Scale(0.0, longest, _LABELS_END, WIDTH - MARGIN - 52)
    parts = [_key()]
    top = 30.0
    for one in bars:
        for kind, share, at in (("then", one.then, top), ("now", one.now, top + 13)):
            width = x(share) - _LABELS_END
            parts.append(
                f'<rect class="{kind}" x="{_LABELS_END}" y="{at:.1f}" width="{width:.1f}" height="11">'
                f"<title>{kind}: {100 * share:.2f} %</title></rect>"
                f'<text class="axis" x="{x(share) + 5:.1f}" y="{at + 10:.1f}">{100 * share:.1f} %</text>'
            )
        label = as_html(short(one.label, 22))
        parts.append(f'<text class="axis end" x="{_LABELS_END - 6}" y="{top + 16:.1f}">{label}</text>')
        top += 34.0
    return svg(parts, top, f"{name}: shares then and now")


def _key() -> str:
    return (
        f'<rect class="then" x="{_LABELS_END}" y="4" width="12" height="11"/>'
        f'<text class="axis" x="{_LABELS_END + 17}" y="14">then</text>'
        f'<rect class="now" x="{_LABELS_END + 62}" y="4" width="12" height="11"/>'
        f'<text class="axis" x="{_LABELS_END + 79}" y="14">now</text>'
    )


def timeline(past: Sequence[Past]) -> str:
    """The score of each window, the youngest to the right; 1 is the threshold. Each point tells its report's digest."""
    highest = max(2.0, *(one.score for one in past))
    top, bottom, left = 20.0, 190.0, 34.0
    y = Scale(0.0, highest * 1.05, bottom, top)
    last = max(1, len(past) - 1)
    x = Scale(0.0, float(last), left + 8, WIDTH - MARGIN - 8)
    parts = []
    for value in (0.0, 1.0, highest):
        kind = "limit" if value == 1.0 else "grid"
        parts.append(
            f'<path class="{kind}" d="M{left} {y(value):.1f}H{WIDTH - MARGIN}"/>'
            f'<text class="axis end" x="{left - 5}" y="{y(value) + 4:.1f}">{value:.2g}</text>'
        )
    places = [(x(float(i)), y(one.score), one) for i, one in enumerate(past)]
    parts.append('<path class="curve" d="M' + "L".join(f"{a:.1f} {b:.1f}" for a, b, _ in places) + '"/>')
    for across, up, one in places:
        kind = "alarm" if one.is_alarm else "calm"
        when = told_time(one.ends_at)
        told = f"window {one.number}{f', to {when}' if when else ''}: {one.score:.2f}, report {one.digest}"
        parts.append(
            f'<circle class="{kind}" cx="{across:.1f}" cy="{up:.1f}" r="{5 if one.is_alarm else 3.5}">'
            f"<title>{as_html(told)}</title></circle>"
        )
    for place, words, side in ((left + 8, past[0], ""), (WIDTH - MARGIN - 8, past[-1], "end")):
        if side == "" or len(past) > 1:
            label = as_html((told_time(words.ends_at) or f"window {words.number}")[:16].replace("T", " "))
            parts.append(f'<text class="axis {side}" x="{place:.1f}" y="{bottom + 20}">{label}</text>')
    return svg(parts, bottom + 30, "Score of each window; 1 is the threshold")

"""The story as one picture and one page: quality, drift, versions and events over time, every point with its digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from raytrain.evaluation.decision.marked_text import as_html
from raytrain.evaluation.decision.standalone import StandalonePage
from raytrain.evaluation.decision.svg import Scale, svg
from raytrain.pipeline.loop.story import Drifted, Event, Quality, Story
from raytrain.storage.location import write_atomically

When = Callable[[float], str]
"""A moment as a person reads it."""
Place = Callable[[float], float]
"""A moment on the axis of time: seconds, or days of a simulated month."""

_WIDTH, _LEFT, _RIGHT = 920.0, 64.0, 900.0
_QUALITY, _DRIFT, _VERSIONS, _EVENTS = (24.0, 184.0), (214.0, 334.0), (364.0, 394.0), 424.0
_LOUD = {"alarm", "override", "rollback", "quarantine"}


def utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def render_page(story: Story, when: When = utc, place: Place = lambda moment: moment) -> str:
    return StandalonePage(
        str(__package__), f"The story of {story.name}", "\n".join(_body(story, when, place))
    ).html()


def _body(story: Story, when: When, place: Place) -> Iterator[str]:
    yield f'<p class="eyebrow">{as_html(story.name)}</p><h1>{as_html(headline(story))}</h1>'
    yield f"<figure>{picture(story, when, place)}</figure>"
    yield "<h2>What happened</h2>"
    yield _table(
        ("when", "what", "", "digest"),
        [(when(one.time), one.kind, one.told, one.digest) for one in story.events],
    )
    yield "<h2>How good the answers were</h2>"
    yield _table(
        ("from", "version", "thumbs up", "bundle"),
        [
            (when(one.begins_at), one.version, _share(one), one.digest)
            for one in story.quality
        ],
    )  # fmt: skip


def headline(story: Story) -> str:
    kinds = [one.kind for one in story.events]
    num_in = kinds.count("promotion") + kinds.count("override")
    parts = [
        _counted(num_in, "version"),
        f"{kinds.count('rollback')} taken back",
        _counted(kinds.count("alarm"), "alarm"),
    ]
    return ", ".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _share(one: Quality) -> str:
    low, high = one.interval
    return f"{one.num_good} of {one.num_rated} ({low:.0%} to {high:.0%})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{as_html(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def picture(story: Story, when: When = utc, place: Place = lambda moment: moment) -> str:
    """As SVG; what a point stands for shows where one rests on it."""
    moments = [place(one.time) for one in story.events] + [place(one.time) for one in story.drift]
    moments += [place(at) for one in story.quality for at in (one.begins_at, one.ends_at)]
    if not moments:
        return svg(
            [f'<text class="axis" x="{_LEFT}" y="40">nothing has happened yet</text>'],
            80.0,
            "nothing",
            _WIDTH,
        )
    low, high = min(moments), max(moments)
    along = Scale(low, high if high > low else low + 1.0, _LEFT + 8, _RIGHT - 8)

    def x(moment: float) -> float:
        return along(place(moment))

    ends = [one.ends_at for one in story.quality] + [one.time for one in story.events]
    last = max([*ends, *(one.time for one in story.drift)], key=place)
    parts = [
        *_quality(story.quality, x, when),
        *_drift(story.drift, x, when),
        *_versions(story.events, x, last),
        *_marks(story.events, x, when),
    ]
    height = _EVENTS + 22.0 * len(story.events) + 12.0
    return svg(parts, height, f"The story of {story.name}: quality, drift, versions, events", _WIDTH)


def _lane(title: str, top: float, bottom: float, ticks: Sequence[tuple[float, str]]) -> Iterator[str]:
    yield f'<text class="axis" x="4" y="{top - 8:.1f}">{title}</text>'
    for at, told in ticks:
        yield f'<path class="grid" d="M{_LEFT} {at:.1f}H{_RIGHT}"/>'
        yield f'<text class="axis end" x="{_LEFT - 6}" y="{at + 4:.1f}">{told}</text>'
    yield f'<path class="grid" d="M{_LEFT} {bottom:.1f}H{_RIGHT}"/>'


def _quality(rows: Sequence[Quality], x: Place, when: When) -> Iterator[str]:
    top, bottom = _QUALITY
    y = Scale(0.0, 1.0, bottom, top)
    yield from _lane(
        "answers with a thumb up", top, bottom, [(y(one), f"{one:.0%}") for one in (0.0, 0.5, 1.0)]
    )
    for one in rows:
        low, high = one.interval
        told = as_html(f"{when(one.begins_at)}: {one.version}, {_share(one)}, {one.digest}")
        left, right = x(one.begins_at), max(x(one.ends_at), x(one.begins_at) + 4)
        yield (
            f'<rect class="range" x="{left:.1f}" y="{y(high):.1f}" width="{right - left:.1f}" '
            f'height="{y(low) - y(high):.1f}"><title>{told}</title></rect>'
            f'<path class="now" d="M{left:.1f} {y(one.share):.1f}H{right:.1f}"><title>{told}</title></path>'
        )


def _drift(rows: Sequence[Drifted], x: Place, when: When) -> Iterator[str]:
    top, bottom = _DRIFT
    highest = max(2.0, *(one.score for one in rows)) if rows else 2.0
    y = Scale(0.0, highest * 1.05, bottom, top)
    yield from _lane(
        "drift: 1 is the threshold", top, bottom, [(y(0.0), "0"), (y(highest), f"{highest:.2g}")]
    )
    yield f'<path class="limit" d="M{_LEFT} {y(1.0):.1f}H{_RIGHT}"/>'
    for one in rows:
        told = as_html(f"{when(one.time)}: score {one.score:.2f}, report {one.digest}")
        kind = "alarm" if one.is_alarm else "calm"
        yield (
            f'<circle class="{kind}" cx="{x(one.time):.1f}" cy="{y(one.score):.1f}" r="{5 if one.is_alarm else 4}">'
            f"<title>{told}</title></circle>"
        )


def _versions(events: Sequence[Event], x: Place, last: float) -> Iterator[str]:
    """A bar for each time that a version was in production."""
    top, bottom = _VERSIONS
    yield from _lane("in production", top, bottom, [])
    moves = [one for one in events if one.kind in ("promotion", "override", "rollback")]
    for place, one in enumerate(moves):
        left = x(one.time)
        right = max(x(moves[place + 1].time) if place + 1 < len(moves) else x(last), left + 3)
        version = one.told.split(":")[0].split()[-1]
        kind = "bad" if one.kind == "override" else "calm"
        yield (
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}">'
            f"<title>{as_html(f'{one.told} ({one.digest})')}</title></rect>"
        )
        if right - left > 40:
            yield f'<text class="on" x="{left + 6:.1f}" y="{bottom - 10:.1f}">{as_html(version)}</text>'


def _marks(events: Sequence[Event], x: Place, when: When) -> Iterator[str]:
    """A line for each event, from the top of the picture to its words."""
    for place, one in enumerate(events):
        at, row = x(one.time), _EVENTS + 22.0 * place
        kind = "mark loud" if one.kind in _LOUD else "mark"
        words = as_html(f"{when(one.time)} · {one.kind}")
        is_late = at > (_LEFT + _RIGHT) / 2
        side, shift = ("end", -6) if is_late else ("", 6)
        yield (
            f'<path class="{kind}" d="M{at:.1f} {_QUALITY[0]}V{row:.1f}"/>'
            f'<text class="axis {side}" x="{at + shift:.1f}" y="{row + 4:.1f}">{words}'
            f"<title>{as_html(f'{one.told} ({one.digest})')}</title></text>"
        )


def write_story(folder: Path, story: Story, when: When = utc, place: Place = lambda moment: moment) -> Path:
    """story.html and story.json; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "story.html"
    write_atomically(page, render_page(story, when, place).encode())
    told = {**story.as_dict(), "when": {str(one.time): when(one.time) for one in story.events}}
    write_atomically(folder / "story.json", (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
    return page

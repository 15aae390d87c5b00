"""The page of a drift report: what moved, how it lay then and lies now, and the windows before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raytrain.evaluation.decision.marked_text import as_html
from raytrain.evaluation.decision.standalone import StandalonePage
from raytrain.monitoring.drift.calibration import FeatureDrift, Judgement
from raytrain.monitoring.drift.judged import Judged, Past, told_time
from raytrain.monitoring.drift.plots import then_and_now, timeline

_MOST_PLOTS = 6


def render_page(judged: Judged, past: Sequence[Past]) -> str:
    """past: the windows of the timeline, this one last."""
    title = f"{judged.watch}: window {judged.number}"
    return StandalonePage(str(__package__), title, "\n".join(_body(judged, past))).html()


def _body(judged: Judged, past: Sequence[Past]) -> Iterator[str]:
    when = [told_time(one) for one in (judged.begins_at, judged.ends_at)]
    span = f" · {when[0]} to {when[1]}" if when[0] and when[1] else ""
    yield f'<p class="eyebrow">{as_html(f"{judged.watch} · window {judged.number}{span}")}</p>'
    yield f"<h1>{as_html(headline(judged))}</h1>"
    word, kind = ("alarm", "failed") if judged.alarms else ("no alarm", "passed")
    yield f'<p><span class="badge {kind}">{word}</span></p>'
    yield _tiles(judged)
    if judged.alarms:
        yield "<h2>Why</h2>" + _list(judged.alarms)
    if judged.warnings:
        yield "<h2>Worth a look</h2>" + _list(judged.warnings)
    if past:
        yield "<h2>Timeline</h2><p class=quiet>The furthest feature of each window, as a share of its threshold.</p>"
        yield f"<figure>{timeline(past)}</figure>"
    yield from _movers(judged)
    for column, words in judged.words.items():
        if words:
            told = [
                f"{one.word}: {100 * one.then:.1f} % of texts then, {100 * one.now:.1f} % now"
                for one in words
            ]
            yield f"<h2>Words of {as_html(column)}</h2>" + _list(told)
    if judged.judgement is not None and judged.judgement.features:
        yield from _table(judged.judgement)
    if judged.digests:
        told = [f"{digest}: {count:,} rows" for digest, count in judged.digests.items()]
        yield "<h2>Who answered</h2>" + _list(told)
    notes = [*judged.notes, *(judged.judgement.notes if judged.judgement is not None else ())]
    if notes:
        yield "<h2>Notes</h2>" + _list(notes)


def headline(judged: Judged) -> str:
    """In few words, for a page and for a terminal."""
    if not judged.num_rows:
        return "No rows came"
    if judged.judgement is not None and judged.judgement.is_drift:
        moved = [one.name for one in judged.judgement.moved]
        more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
        return f"Moved: {', '.join(moved[:3])}{more}"
    if judged.alarms:
        return f"Alarm: {judged.alarms[0]}"
    return "Nothing has moved" if judged.judgement is not None else "No rule is broken"


def _tiles(judged: Judged) -> str:
    tiles = [(f"{judged.num_rows:,}", "rows")]
    one = judged.judgement
    if one is not None:
        tiles += [
            (f"{one.num_reference:,}", "rows of the reference"),
            (f"{judged.score:.2f}", "score; above 1 is an alarm"),
            (f"{one.p_value:.3g}", f"p-value; up to {one.level:g} is an alarm"),
        ]
    inner = "".join(
        f'<div class="tile"><b>{value}</b><span>{as_html(told)}</span></div>' for value, told in tiles
    )
    return f'<div class="tiles">{inner}</div>'


def _movers(judged: Judged) -> Iterator[str]:
    names = (
        [one.name for one in judged.judgement.features] if judged.judgement is not None else list(judged.bars)
    )
    drawn = [name for name in names if judged.bars.get(name)][:_MOST_PLOTS]
    if drawn:
        figures = (
            f"<figure><figcaption>{as_html(name)}</figcaption>{then_and_now(name, judged.bars[name])}</figure>"
            for name in drawn
        )
        yield f'<h2>What is furthest from the reference</h2><div class="plots">{"".join(figures)}</div>'


def _table(judgement: Judgement) -> Iterator[str]:
    yield "<h2>Every feature</h2>"
    yield '<p class="tools"><input id="wanted" type="search" placeholder="feature" aria-label="Show features"></p>'
    heads = ("feature", "distance", "value", "threshold", "p-value", "adjusted")
    head = "".join(
        f'<th scope="col" class="{"number" if i > 1 else ""}">{one}</th>' for i, one in enumerate(heads)
    )
    rows = "".join(_row(one) for one in judgement.features)
    table = f'<table class="stacked"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    yield f'<div class="scroll">{table}</div>'
    yield (
        f'<p class="quiet">Thresholds and p-values are from {judgement.permutations:,} permutations of the rows of '
        f"then and now. A window without drift is an alarm in {100 * judgement.level:g} % of cases, over all features "
        "together; adjusted: Benjamini and Hochberg.</p>"
    )


def _row(one: FeatureDrift) -> str:
    cells = [
        ("value", f"{one.value:.4g}"),
        ("threshold", f"{one.threshold:.4g}"),
        ("p-value", f"{one.p_value:.3g}"),
    ]
    cells.append(("adjusted", f"{one.adjusted_p_value:.3g}"))
    told = "".join(f'<td class="number" data-label="{label}">{text}</td>' for label, text in cells)
    mark = ' class="moved"' if one.has_moved else ""
    name = as_html(one.name)
    return f'<tr data-feature="{name}"{mark}><td>{name}</td><td data-label="distance">{one.distance}</td>{told}</tr>'


def _list(lines: Sequence[str]) -> str:
    return '<ul class="notes">' + "".join(f"<li>{as_html(one)}</li>" for one in lines) + "</ul>"

"""The page's part about items won and lost: the plot by category, and outputs side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator

from raytrain.evaluation.decision.decide import Decision
from raytrain.evaluation.decision.flips import Flip, FlipCount, choose_shown, count_flips, find_flips
from raytrain.evaluation.decision.marked_text import as_html, marked
from raytrain.evaluation.decision.plots import flips_by_category
from raytrain.evaluation.decision.quantity import counted
from raytrain.evaluation.decision.turns import Turn, turns_of

MOST_FLIPS = 200
"""On a page, over all candidates."""
MOST_CHARACTERS = 2_000
"""Of a text on the page: its beginning, and its end."""
_MOST_CATEGORIES = 16
_MOST_TURNS = 10
"""Of a question, the last."""
_SAID_BY = {
    "system": "system prompt",
    "user": "question",
    "assistant": "answer before",
    "model": "answer before",
    "tool": "a tool's result",
}


def flips_section(decision: Decision, num_candidates: int) -> Iterator[str]:
    """Nothing where no item's score differs."""
    suites = [one.comparison for one in decision.suites]
    flips = find_flips(suites)
    yield "<h2>Items won and lost</h2>"
    if not flips:
        yield "<p>No item has another score.</p>"
        return
    counts = [one for one in count_flips(suites) if one.num_won + one.num_lost]
    plotted = counts[:_MOST_CATEGORIES]
    most = max(max(one.num_won, one.num_lost) for one in plotted)
    column = len(plotted) if len(plotted) < 6 else math.ceil(len(plotted) / 2)
    yield f'<p class="quiet">{_on_counts(counts)}</p><div class="plots">'
    for part in (plotted[:column], plotted[column:]):
        yield f"<figure>{flips_by_category(part, most)}</figure>" if part else ""
    yield "</div>"
    shown = choose_shown(flips, max(10, MOST_FLIPS // num_candidates))
    yield "<h2>Side by side</h2>"
    yield f'<p class="quiet">{_on_shown(flips, shown)}</p>'
    yield '<div class="flips">'
    yield _tools(shown)
    yield from (_flip(one, is_open=i == 0) for i, one in enumerate(shown))
    yield "</div>"


def _on_counts(counts: list[FlipCount]) -> str:
    told = "Items on which the candidate scores less (left) and more (right) than the baseline."
    hidden = len(counts) - _MOST_CATEGORIES
    return (
        told
        if hidden <= 0
        else f"{told} The {_MOST_CATEGORIES} categories with most; {hidden:,} more have some."
    )


def _on_shown(flips: list[Flip], shown: list[Flip]) -> str:
    won, lost = sum(one.won for one in flips), sum(not one.won for one in flips)
    told = f"{counted(won, 'item')} won, {lost:,} lost. Marked: words that only one of the two wrote."
    if len(shown) == len(flips):
        return told
    rest = f"all {len(flips):,} lie beside this page, as Parquet."
    return f"{told} {len(shown):,} are shown, from every suite in turn; {rest}"


def _tools(shown: list[Flip]) -> str:
    suites = "".join(
        f"<option>{as_html(one)}</option>" for one in dict.fromkeys(flip.suite for flip in shown)
    )
    return (
        '<div class="tools" hidden><input type="search" placeholder="Search in questions and answers" '
        'aria-label="Search in questions and answers">'
        '<select class="kind" aria-label="Won or lost"><option value="">won and lost</option>'
        '<option value="lost">lost</option><option value="won">won</option></select>'
        f'<select class="suite" aria-label="Suite"><option value="">all suites</option>{suites}</select>'
        '<span class="count quiet" aria-live="polite"></span></div>'
    )


def _flip(flip: Flip, *, is_open: bool) -> str:
    kind = "won" if flip.won else "lost"
    before, after = marked(_cut(flip.baseline.output), _cut(flip.candidate.output))
    category = "" if flip.baseline.category is None else f" · {as_html(flip.baseline.category)}"
    turns = turns_of(flip.baseline.prompt)
    asked = flip.baseline.prompt if turns is None else turns[-1].text
    question = " ".join(asked[-400:].split())[-160:]
    references = as_html(_cut("\n".join(flip.baseline.references)))
    return (
        f'<details{" open" if is_open else ""} data-kind="{kind}" data-suite="{as_html(flip.suite)}"><summary>'
        f'<span class="badge {"passed" if flip.won else "failed"}">{kind}</span>'
        f"<b>{as_html(flip.suite)}{category}</b><span>item {as_html(flip.baseline.item_id[:80])}</span>"
        f'<span class="question">{as_html(question)}</span></summary><div class="flip">'
        f"{_question(flip.baseline.prompt, turns)}"
        f'<div class="said"><h3>right</h3><pre>{references}</pre></div><div class="sides">'
        f"{_side('baseline', flip.baseline_score, before, flip.baseline.error)}"
        f"{_side('candidate', flip.candidate_score, after, flip.candidate.error)}</div></div></details>"
    )


def _question(prompt: str, turns: list[Turn] | None) -> str:
    """As people read it, what the model read folded beneath; the latter alone where its form is not known."""
    raw = f"<pre>{as_html(_cut(prompt))}</pre>"
    if turns is None:
        return f'<div class="said"><h3>question</h3>{raw}</div>'
    shown: list[Turn | None] = [*turns[-_MOST_TURNS:]]
    if len(turns) > _MOST_TURNS:
        shown.insert(0, None)
    most = MOST_CHARACTERS // len(shown)
    told = "".join(
        f'<p class="quiet">{len(turns) - _MOST_TURNS:,} turns before</p>'
        if one is None
        else f'<h3>{_SAID_BY[one.role]}</h3><pre dir="auto">{as_html(_cut(one.text, most))}</pre>'
        for one in shown
    )
    return f'<div class="said">{told}<details class="raw"><summary>as the model read it</summary>{raw}</details></div>'


def _side(name: str, score: float, output: str, error: str | None) -> str:
    failed = "" if error is None else f", without a score: {as_html(error[:200])}"
    shown = output or "<i>nothing</i>"
    return (
        f'<div class="said"><h3>{name}, {100 * score:.3g} %{failed}</h3><pre dir="auto">{shown}</pre></div>'
    )


def _cut(text: str, most: int = MOST_CHARACTERS) -> str:
    if len(text) <= most:
        return text
    tail = most // 4
    left_out = len(text) - most
    return f"{text[: most - tail]}\n… {left_out:,} characters left out …\n{text[-tail:]}"

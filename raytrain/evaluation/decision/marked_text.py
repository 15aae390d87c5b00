"""Two texts beside each other as HTML: what only one of them has is marked. Everything is escaped."""

from __future__ import annotations

import difflib
import re
from html import escape

from raytrain.evaluation.decision.visible import visible

_MOST_WORDS = 600
"""Finding what differs takes the square of it."""


def marked(before: str, after: str) -> tuple[str, str]:
    """Words that only `before` has in <del>, those that only `after` has in <ins>; unmarked where texts are long, or
    have hardly a word in common."""
    left, right = _words(before), _words(after)
    if max(len(left), len(right)) > _MOST_WORDS:
        return as_html(before), as_html(after)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    if matcher.ratio() < 0.2:
        return as_html(before), as_html(after)
    old, new = [], []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        gone, come = as_html("".join(left[i1:i2])), as_html("".join(right[j1:j2]))
        old.append(gone if kind == "equal" or not gone else f"<del>{gone}</del>")
        new.append(come if kind == "equal" or not come else f"<ins>{come}</ins>")
    return "".join(old), "".join(new)


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+\s*|[^\w\s]\s*", text)


def as_html(text: str) -> str:
    """Escaped, and nothing in it unseen."""
    return escape(visible(text))

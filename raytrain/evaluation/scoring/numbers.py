"""The number that an answer ends in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from raytrain.evaluation.scoring.registry import Score, register_scorer

_MARK = re.compile(r"####|\\boxed\{|(?i:answer\s*(?:is|:|=))")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_NUMBER = re.compile(
    r"""
    (?<![\w.]) (?: (?P<sign>[-+\u2212]) (?=[$€£\d.]) )? (?: [$€£] \s? )?
    (?P<number> (?: \d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?!\d) | \d+ ) (?:\.\d+)? (?:[eE][-+]?\d+)? | \.\d+ )
    (?: \s?/\s? (?P<below>\d+) (?![\d./]) )?
    """,
    re.VERBOSE,
)


def final_number(text: str) -> Decimal | None:
    r"""The number after the last mark of an answer (`####`, `\boxed{`, "answer is", "answer:"), else the last of all.

    Commas and thin spaces may set off thousands, a currency may stand before, and 3/4 is a fraction.
    """
    text = _FRACTION.sub(r"\1/\2", text)
    for mark in reversed([found.end() for found in _MARK.finditer(text)]):
        after = _NUMBER.search(text, mark)
        if after is not None:
            return _value(after)
    found = list(_NUMBER.finditer(text))
    return _value(found[-1]) if found else None


def _value(found: re.Match[str]) -> Decimal:
    value = Decimal(re.sub(r"[,\u00a0\u2009\u202f]", "", found["number"]))
    if found["below"] and int(found["below"]):
        value /= int(found["below"])
    return -value if found["sign"] in ("-", "\u2212") else value


@register_scorer("number")
def number(output: str, references: Sequence[str], *, tolerance: float = 0.0) -> Score:
    """1 where the answer's number is a reference's, GSM8K style (Cobbe et al. 2021); `tolerance` is a share of it.

    Raises ValueError where no reference holds a number: such an item cannot be scored.
    """
    slack = Decimal(str(tolerance))
    wanted = [value for value in map(final_number, references) if value is not None]
    if not wanted:
        raise ValueError(f"no number stands in {list(references)!r:.80}")
    found = final_number(output)
    if found is None:
        return Score(0.0, "no number is found")
    is_right = any(abs(found - one) <= slack * abs(one) for one in wanted)
    return Score(float(is_right), f"read as {found}")

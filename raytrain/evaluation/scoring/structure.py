"""The same JSON value, however it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from raytrain.evaluation.scoring.registry import Score, register_scorer


@register_scorer("json_equal")
def json_equal(output: str, references: Sequence[str]) -> Score:
    """1 where the first JSON value in the output is a reference's: order of keys and white space aside, 1 is 1.0.

    An object or array may stand in prose or in a fenced block; a text without one is read whole.
    Raises ValueError where no reference holds JSON: such an item cannot be scored.
    """
    wanted = [value for value, is_json in map(first_value, references) if is_json]
    if not wanted:
        raise ValueError(f"no JSON stands in {list(references)!r:.80}")
    found, is_json = first_value(output)
    if not is_json:
        return Score(0.0, "no JSON is found")
    return Score(float(any(same(found, value) for value in wanted)), f"read as {_short(found)}")


def first_value(text: str) -> tuple[Any, bool]:
    """The first object or array in a text, else the whole text as JSON; whether there is one.

    A key that stands twice, NaN and infinity are no JSON, and what lies inside such a value, or inside one that is cut
    off, is not taken for the answer.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    start = _next_bracket(text, 0)
    while start is not None:
        try:
            return decoder.raw_decode(text, start)[0], True
        except json.JSONDecodeError as error:
            if not text[error.pos :].strip():
                return None, False  # cut off
            start = _next_bracket(text, max(error.pos, start + 1))
        except (ValueError, RecursionError):
            return None, False
    try:
        return decoder.decode(text.strip()), True
    except (ValueError, RecursionError):
        return None, False


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values; true is not 1, as it is to Python."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    return type(left) is type(right) and left == right


def _next_bracket(text: str, start: int) -> int | None:
    places = [place for place in (text.find("{", start), text.find("[", start)) if place >= 0]
    return min(places, default=None)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no finite number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"

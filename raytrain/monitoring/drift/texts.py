"""What is measured of a text. Every function takes the texts of a sample, None where there is none."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from raytrain.errors import ConfigError
from raytrain.evaluation.safety.refusals import behaviour_by_rules
from raytrain.evaluation.scoring.structure import first_value
from raytrain.monitoring.drift.columns import Column, names, numbers

Texts = Sequence[str | None]
Measured = Callable[[str, Texts], Column]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_LONGEST = 20_000
"""Characters of a text that are looked at; its length is told whole."""
_WORD_BINS = 64


def characters(name: str, texts: Texts) -> Column:
    return numbers(name, [math.nan if one is None else len(one) for one in texts])


def words(name: str, texts: Texts) -> Column:
    return numbers(name, [math.nan if one is None else len(words_of(one)) for one in texts])


def word_length(name: str, texts: Texts) -> Column:
    """Its mean."""
    found = [[] if one is None else words_of(one) for one in texts]
    return numbers(name, [sum(map(len, one)) / len(one) if one else math.nan for one in found])


def repeated_words(name: str, texts: Texts) -> Column:
    """Share of the words that stood in the text before: an answer that runs in circles has many."""
    found = [[] if one is None else [word.lower() for word in words_of(one)] for one in texts]
    return numbers(name, [1.0 - len(set(one)) / len(one) if one else math.nan for one in found])


def vocabulary(name: str, texts: Texts) -> Column:
    """Words by the remainder of a checksum, which needs no list of words that one of the samples would have made.
    A word counts once a text: a text that repeats one is no text of many words."""
    rows = np.zeros((len(texts), _WORD_BINS), np.float32)
    for row, one in enumerate(texts):
        for word in {word.lower() for word in words_of(one or "")}:
            rows[row, zlib.crc32(word.encode("utf-8", "replace")) % _WORD_BINS] += 1.0
    return Column(name, "counts", rows)


def language(name: str, texts: Texts) -> Column:
    """Its code, as py3langid sees it; none of texts without three letters."""
    classify = _language_identifier()
    return names(name, [classify(one) for one in texts])


@cache
def _language_identifier() -> Callable[[str | None], str | None]:
    try:
        import py3langid
    except ImportError as error:
        raise ConfigError(
            "the language of texts cannot be told",
            why="py3langid is not installed",
            fix="pip install 'raytrain[drift]'",
        ) from error

    def classify(text: str | None) -> str | None:
        if text is None or sum(map(str.isalpha, text[:_LONGEST])) < 3:
            return None
        return str(py3langid.classify(text[:_LONGEST].encode("utf-8", "replace").decode())[0])

    return classify


def refusal(name: str, texts: Texts) -> Column:
    """By the rules of safety evaluations: refused, complied or empty."""
    return names(name, [_behaviour(one) for one in texts])


def _behaviour(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return behaviour_by_rules([], text[:_LONGEST])
    except TimeoutError:
        return "cannot be told"


def answer_format(name: str, texts: Texts) -> Column:
    """text, json, tool call, broken json; json in text where words stand around it."""
    return names(name, [None if one is None else _format_of(one) for one in texts])


def tool(name: str, texts: Texts) -> Column:
    """Which tool an answer calls; none where it calls none."""
    return names(name, [None if one is None else called_tool(one) for one in texts])


def called_tool(text: str) -> str | None:
    """The tool's name in `{"name": …, "arguments": …}`, or `tool` for `name`, or the first of a list of such."""
    value, is_json = first_value(text[:_LONGEST])
    if isinstance(value, list) and value:
        value = value[0]
    if not is_json or not isinstance(value, dict):
        return None
    called = value.get("tool", value.get("name"))
    has_arguments = isinstance(value.get("arguments", value.get("parameters")), dict | str)
    return called if isinstance(called, str) and has_arguments else None


def _format_of(text: str) -> str:
    stripped = text[:_LONGEST].strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    try:
        value = json.loads(stripped)
    except (ValueError, RecursionError):
        if stripped.startswith(("{", "[")):
            return "broken json"
        value, is_json = first_value(stripped)
        return "json in text" if is_json and isinstance(value, dict | list) else "text"
    if called_tool(stripped) is not None:
        return "tool call"
    return "json" if isinstance(value, dict | list) else "text"


def words_of(text: str) -> list[str]:
    return _WORD.findall(text[:_LONGEST])


def common_words(texts: Texts, most: int) -> dict[str, int]:
    """In how many texts each of the commonest words stands."""
    counted = Counter(word for one in texts for word in {word.lower() for word in words_of(one or "")})
    return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:most])


OF_ANY_TEXT: dict[str, Measured] = {
    "characters": characters,
    "words": words,
    "word length": word_length,
    "repeated words": repeated_words,
    "vocabulary": vocabulary,
    "language": language,
}
OF_ANSWERS: dict[str, Measured] = {"refusal": refusal, "format": answer_format, "tool": tool}


def can_tell_languages() -> bool:
    import importlib.util

    return importlib.util.find_spec("py3langid") is not None


def as_text(value: Any) -> str | None:
    """Of a cell; a list's texts one after the other."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "\n\n".join(str(one) for one in value if one is not None)
    return str(value)

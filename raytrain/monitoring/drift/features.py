"""From rows to features: what is measured of each column, and the values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.errors import DataError
from raytrain.evaluation.confidence import confidence_of
from raytrain.monitoring.drift.columns import Column, names, numbers
from raytrain.monitoring.drift.distances.distance import Kind
from raytrain.monitoring.drift.section import ColumnKind
from raytrain.monitoring.drift.texts import OF_ANSWERS, OF_ANY_TEXT, as_text, can_tell_languages

VALUE = "value"
EMBEDDING = "embedding"
_CONFIDENCE = ("top_1", "top_5", "entropy")
_TEXT_FROM_CHARS = 40
_MOST_NAMES = 50
_OF_MEASURE: dict[str, Kind] = {
    "vocabulary": "counts", "language": "categorical", "refusal": "categorical", "format": "categorical",
    "tool": "categorical", EMBEDDING: "vector",
}  # fmt: skip

Cells = Sequence[Any]
Embed = Callable[[Sequence[str | None]], NDArray[np.float32]]
"""Texts to points, a row each."""


@dataclass(frozen=True)
class Feature:
    """What is measured of a column."""

    name: str
    kind: Kind
    column: str
    measure: str
    """`value`, or what of a text: see `texts.py`."""


def choose_features(
    columns: Mapping[str, Cells], asked: Mapping[str, ColumnKind], *, with_embedding: bool = False
) -> tuple[list[Feature], list[str]]:
    """Of each column that holds something to measure; and what was left out, and why.

    asked: what columns hold, where that is known. Raises DataError where it names a column that is not there.
    """
    unknown = sorted(asked.keys() - columns.keys())
    if unknown:
        raise DataError(
            f"the rows have no column {unknown[0]}",
            why=f"`columns` names it; there are {', '.join(columns)}",
            fix="correct `columns`, or the source of the rows",
        )
    features: list[Feature] = []
    notes: list[str] = []
    for name, cells in columns.items():
        kind, why = (asked[name], "as asked") if name in asked else guess_kind(name, cells)
        if kind in ("text", "answer"):
            features += _of_text(name, kind == "answer", with_embedding)
        elif kind == "logprobs":
            features += [Feature(f"{name}: {one}", "numeric", name, one) for one in _CONFIDENCE]
        elif kind == "ignore":
            notes += [] if name in asked else [f"{name} is left out: {why}"]
        else:
            features.append(Feature(name, "numeric" if kind == "numeric" else "categorical", name, VALUE))
    if not can_tell_languages() and any(one.measure == "language" for one in features):
        features = [one for one in features if one.measure != "language"]
        notes.append("languages are left out: py3langid is not installed (pip install 'raytrain[drift]')")
    return features, notes


def _of_text(name: str, is_answer: bool, with_embedding: bool) -> list[Feature]:
    measures = [*OF_ANY_TEXT, *(OF_ANSWERS if is_answer else ()), *((EMBEDDING,) if with_embedding else ())]
    return [Feature(f"{name}: {one}", _OF_MEASURE.get(one, "numeric"), name, one) for one in measures]


def guess_kind(name: str, cells: Cells) -> tuple[ColumnKind, str]:
    """What a column holds, by its values, and why."""
    known = [one for one in cells if one is not None]
    if not known:
        return "ignore", "all of its values are missing"
    if name == "id" or name.endswith("_id"):
        return "ignore", "ids say nothing"
    if all(isinstance(one, bool) for one in known):
        return "categorical", "yes or no"
    if all(isinstance(one, int | float) for one in known):
        return "numeric", "numbers"
    if all(isinstance(one, list) for one in known):
        return _kind_of_lists(known)
    if all(isinstance(one, str) for one in known):
        length = sum(map(len, known)) / len(known)
        distinct = len(set(known))
        if length > _TEXT_FROM_CHARS or (distinct > _MOST_NAMES and distinct > len(known) / 2):
            return "text", "long, or hardly any twice"
        return "categorical", "a few names"
    if all(isinstance(one, datetime | date) for one in known):
        return "ignore", "a time"
    return "ignore", f"its values are of {', '.join(sorted({type(one).__name__ for one in known}))}"


def _kind_of_lists(known: Sequence[list[Any]]) -> tuple[ColumnKind, str]:
    inside = [one for cell in known for one in cell if one is not None]
    if inside and all(isinstance(one, str) for one in inside):
        return "text", "lists of texts"
    is_nested = inside and all(isinstance(one, list) for one in inside)
    if is_nested and all(isinstance(x, int | float) for one in inside for x in one if x is not None):
        return "logprobs", "lists of lists of numbers"
    return "ignore", "lists of neither texts nor logprobs"


def measure_features(
    columns: Mapping[str, Cells], features: Sequence[Feature], embed: Embed | None = None
) -> list[Column]:
    """The values, in the order of `features`. Raises DataError where a column is not there."""
    lacking = sorted({one.column for one in features} - columns.keys())
    if lacking:
        raise DataError(
            f"the rows have no column {', '.join(lacking)}",
            why=f"the reference was frozen with it; there are {', '.join(columns)}",
            fix="name the table that has it, or freeze a reference of these rows",
        )
    return [_measured(one, columns[one.column], embed) for one in features]


def _measured(feature: Feature, cells: Cells, embed: Embed | None) -> Column:
    name, measure = feature.name, feature.measure
    if measure == VALUE:
        if feature.kind == "numeric":
            return numbers(name, [_number(one) for one in cells])
        return names(name, [None if one is None else str(one) for one in cells])
    if measure in _CONFIDENCE:
        found = [confidence_of(_logprobs(one)) for one in cells]
        return numbers(name, [_number(getattr(one, measure)) for one in found])
    texts = [as_text(one) for one in cells]
    if measure == EMBEDDING:
        assert embed is not None, "whoever has such a feature has a model"
        return Column(name, "vector", embed(texts))
    return {**OF_ANY_TEXT, **OF_ANSWERS}[measure](name, texts)


def _number(value: Any) -> float:
    """What is no number is missing, as is a number that no float can be."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _logprobs(cell: Any) -> list[list[float]]:
    if not isinstance(cell, list):
        return []
    places = [one for one in cell if isinstance(one, list)]
    return [[float(x) for x in one if isinstance(x, int | float) and x == x] for one in places]

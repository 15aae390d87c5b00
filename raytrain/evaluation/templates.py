"""Texts with fields of a row in them: `Question: {question}`, `{messages[0].content}`."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError, DataError


def fields_of(template: str, key: str) -> list[str]:
    """The fields that a template names. Raises ConfigError, for the recipe's `key`, where it cannot be read."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(
            f"{key}: {template!r} cannot be read",
            why=str(error),
            fix="write {field} for a column of the rows, and {{ or }} for a brace of the text",
        ) from error
    for _, field, spec, conversion in parts:
        if field is not None and (not field or spec or conversion):
            raise ConfigError(
                f"{key}: {template!r} holds a field without a name or with a format",
                why="a field is the name of a column, as {question} or {messages[0].content}",
                fix="name the column, and write {{ or }} for a brace of the text",
            )
    return [field for _, field, _, _ in parts if field is not None]


def fill(template: str, row: Mapping[str, Any], *, key: str, place: str) -> str:
    """The template with a row's values; `place` says which row.

    Raises ConfigError where the row has no such field, DataError where it is no text.
    """
    parts = []
    for text, field, _, _ in string.Formatter().parse(template):
        parts.append(text)
        if field is not None:
            parts.append(_as_text(value_at(row, field, key=key, place=place), field, place))
    return "".join(parts)


def value_at(row: Mapping[str, Any], field: str, *, key: str, place: str) -> Any:
    """What stands at `question`, `messages[0].content` or `choices.text` of a row; ConfigError where nothing does.

    A column whose own name holds dots or brackets is found by it.
    """
    if field in row:
        return row[field]
    value: Any = row
    for part in re.findall(r"[^.\[\]]+", field):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            known = [str(one) for one in value] if isinstance(value, Mapping) else []
            near = nearest(part, known)
            raise ConfigError(
                f"{key}: {place} has no `{field}`",
                why=f"it has {', '.join(known)}" if known else f"`{part}` leads nowhere in it",
                fix=f"did you mean `{near}`?" if near else "name a column that every row has",
            ) from error
    return value


def _as_text(value: Any, field: str, place: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None or not isinstance(value, int | float):
        raise DataError(
            f"{place}: `{field}` is no text",
            why=f"it is {type(value).__name__}: {str(value)[:80]!r}",
            fix="name a column that holds text or numbers",
        )
    return str(value)

"""A row on its way through preparation: raw, faulty, or canonical."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Reason = Literal[
    "broken_json",
    "broken_csv",
    "invalid_utf8",
    "not_an_object",
    "missing_column",
    "wrong_type",
    "bad_messages",
    "empty_prompt",
    "empty_completion",
    "too_short",
    "too_long",
]

REASONS: dict[Reason, str] = {
    "broken_json": "the line is not valid JSON",
    "broken_csv": "the line is not valid CSV, or has more values than the header",
    "invalid_utf8": "the text is not valid Unicode",
    "not_an_object": "the row is not an object with named columns",
    "missing_column": "a column that the layout needs is missing or null",
    "wrong_type": "a column holds something that is not text",
    "bad_messages": "the messages are no conversation of roles and contents",
    "empty_prompt": "the prompt is empty",
    "empty_completion": "there is nothing to learn: the completion or last assistant message is empty",
    "too_short": "the row has fewer characters than data.min_chars",
    "too_long": "the row has more characters than data.max_row_chars",
}


class RowFault(NamedTuple):
    """Why a row cannot be used; `raw` is its text, where it could not even be parsed."""

    reason: Reason
    detail: str
    raw: str | None = None


class RawRow(NamedTuple):
    """A row as it was read. `line` counts from 1: the line of a text file, else the number of the row."""

    file: str | None
    line: int
    content: dict[str, Any] | RowFault


@dataclass(frozen=True, slots=True)
class CanonicalRow:
    """A cleaned row in one of three shapes: a conversation, a raw prompt with its completion, or a text."""

    messages: tuple[tuple[str, str], ...] | None = None
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None

    def parts(self) -> tuple[str, ...]:
        """All texts of the row in reading order."""
        if self.messages is not None:
            return tuple(content for _, content in self.messages)
        if self.text is not None:
            return (self.text,)
        return (self.prompt or "", self.completion or "")

    def identity(self) -> str:
        """Text that is equal for equal rows only; a cleaned text holds none of these separators."""
        if self.messages is not None:
            return "\x1e".join([f"{role}\x1f{content}" for role, content in self.messages])
        if self.text is not None:
            return f"\x1d{self.text}"
        return f"\x1d{self.prompt}\x1d{self.completion}"

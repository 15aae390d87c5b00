"""A row on its way through preparation: raw, faulty, or canonical."""

from __future__ import annotations

import hashlib
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
    "bad_tags",
    "bad_image",
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
    "bad_tags": "tokens and tags are not two lists of the same length",
    "bad_image": "the image cannot be read",
    "empty_prompt": "the prompt is empty",
    "empty_completion": "there is nothing to learn: the completion or last assistant message is empty",
    "too_short": "the row has fewer characters than data.min_chars",
    "too_long": "the row has more characters than data.max_row_chars",
}

REMEDIES: dict[Reason, str] = {
    "missing_column": "unknown column names are mapped with data.sources.0.columns",
    "not_an_object": "a row is an object with named columns, such as question and answer",
    "too_short": "lower data.min_chars",
    "too_long": "raise data.max_row_chars, or cut the rows",
}
"""What to do where every row fails for one reason, beside mending the rows."""


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
    """A cleaned row in one of five shapes: a conversation, a raw prompt with its completion, a text, tokens with their
    tags, or an image. A text or an image may carry a label.
    """

    messages: tuple[tuple[str, str], ...] | None = None
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    label: str | None = None
    tokens: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    image: bytes | None = None
    """The image file as it was read, not its pixels."""

    def parts(self) -> tuple[str, ...]:
        """All texts of the row in reading order; of an image its digest, which is like no other."""
        if self.messages is not None:
            return tuple(content for _, content in self.messages)
        if self.text is not None:
            return (self.text,)
        if self.tokens is not None:
            return (" ".join(self.tokens),)
        if self.image is not None:
            return (hashlib.sha256(self.image).hexdigest(),)
        return (self.prompt or "", self.completion or "")

    def identity(self) -> str:
        """Text that is equal for equal rows only; a cleaned text holds none of these separators."""
        if self.messages is not None:
            return "\x1e".join([f"{role}\x1f{content}" for role, content in self.messages])
        if self.tokens is not None:
            pairs = zip(self.tokens, self.tags or (), strict=True)
            return "\x1c" + "\x1e".join([f"{token}\x1f{tag}" for token, tag in pairs])
        labelled = "" if self.label is None else f"\x1c{self.label}"
        if self.text is not None:
            return f"\x1d{self.text}{labelled}"
        if self.image is not None:
            return f"\x1c\x1d{self.parts()[0]}{labelled}"
        return f"\x1d{self.prompt}\x1d{self.completion}"

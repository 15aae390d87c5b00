"""Row layouts: from the columns that people have to one canonical row, or the reason why there is none.

A pure function per layout; each takes the row after `columns:` was applied. Texts are cleaned on the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raytrain.data.cleaning import clean_text
from raytrain.data.images import image_bytes
from raytrain.data.rows import CanonicalRow, Reason, RowFault
from raytrain.data.section import Layout

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}


class _Refused(Exception):
    """Carries a fault out of nested messages; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.fault = RowFault(reason, detail)


def canonicalise(
    row: Mapping[str, Any], layout: Layout, columns: Mapping[str, str], folder: Path | None = None
) -> CanonicalRow | RowFault:
    """The canonical form of `row`. Never raises for anything that JSON, CSV or Parquet can hold.

    Paths of images start at `folder`.
    """
    try:
        if columns:
            row = _renamed(row, columns)
        found = detect_layout(row) if layout == "auto" else layout
        if found is None:
            raise _Refused(
                "missing_column", f"no layout fits the columns {_listed(row)}; map them with `columns:`"
            )
        if found == "image_classification":
            return _from_image(row, folder)
        return _BUILDERS[found](row)
    except _Refused as refused:
        return refused.fault


def detect_layout(row: Mapping[str, Any]) -> Layout | None:
    """The layout that the columns of this row speak for; the more specific one first."""
    if "messages" in row or "conversations" in row:
        return "chat"
    if "prompt" in row and ("completion" in row or "response" in row):
        return "prompt_completion"
    if "instruction" in row and ("output" in row or "response" in row):
        return "instruction"
    if "question" in row and "answer" in row:
        return "question_answer"
    if "tokens" in row and "tags" in row:
        return "token_classification"
    if "image" in row:
        return "image_classification"
    if "text" in row:
        # A text without a label is still a text: another task may learn from it.
        return "text" if row.get("label") is None else "classification"
    return None


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    taken = set(columns.values())
    renamed = {name: value for name, value in row.items() if name not in taken}
    for ours, theirs in columns.items():
        if theirs not in row:
            raise _Refused(
                "missing_column", f"`columns` maps {ours} to `{theirs}`; the row has {_listed(row)}"
            )
        renamed[ours] = row[theirs]
    return renamed


def _listed(row: Mapping[str, Any]) -> str:
    names = sorted(str(name)[:40] for name in row)
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "none"


def _text_of(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        raise _Refused("missing_column", f"`{name}` is null")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise _Refused("wrong_type", f"`{name}` is {_kind(value)}, not text")


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return str(value)
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def _column(row: Mapping[str, Any], *names: str, keep_edges: bool = False) -> str:
    for name in names:
        if name in row:
            return clean_text(_text_of(row[name], name), keep_edges=keep_edges)
    raise _Refused("missing_column", f"there is no `{names[0]}`; the row has {_listed(row)}")


def _exchange(request: str, answer: str, names: tuple[str, str]) -> CanonicalRow:
    if not request:
        raise _Refused("empty_prompt", f"`{names[0]}` is empty")
    if not answer:
        raise _Refused("empty_completion", f"`{names[1]}` is empty")
    return CanonicalRow(messages=(("user", request), ("assistant", answer)))


def _from_question(row: Mapping[str, Any]) -> CanonicalRow:
    return _exchange(_column(row, "question"), _column(row, "answer"), ("question", "answer"))


def _from_instruction(row: Mapping[str, Any]) -> CanonicalRow:
    request = _column(row, "instruction")
    extra = clean_text(_text_of(row["input"], "input")) if row.get("input") is not None else ""
    if extra:
        request = f"{request}\n\n{extra}" if request else extra
    return _exchange(request, _column(row, "output", "response"), ("instruction", "output"))


def _from_prompt(row: Mapping[str, Any]) -> CanonicalRow:
    if isinstance(row.get("prompt"), list):
        completion = row.get("completion", row.get("response"))
        if isinstance(completion, str):
            completion = [{"role": "assistant", "content": completion}]
        if not isinstance(completion, list):
            raise _Refused("bad_messages", "`prompt` is a list of messages, `completion` is not")
        return _conversation([*row["prompt"], *completion])
    prompt = _column(row, "prompt", keep_edges=True)
    completion_text = _column(row, "completion", "response", keep_edges=True)
    if not prompt.strip():
        raise _Refused("empty_prompt", "`prompt` is empty")
    if not completion_text.strip():
        raise _Refused("empty_completion", "`completion` is empty")
    return CanonicalRow(prompt=prompt, completion=completion_text)


def _from_text(row: Mapping[str, Any]) -> CanonicalRow:
    text = _column(row, "text")
    if not text:
        raise _Refused("empty_completion", "`text` is empty")
    return CanonicalRow(text=text)


def _from_labelled_text(row: Mapping[str, Any]) -> CanonicalRow:
    text, label = _column(row, "text"), _column(row, "label")
    if not text:
        raise _Refused("empty_prompt", "`text` is empty")
    if not label:
        raise _Refused("empty_completion", "`label` is empty")
    return CanonicalRow(text=text, label=label)


def _from_tokens(row: Mapping[str, Any]) -> CanonicalRow:
    columns: dict[str, tuple[str, ...]] = {}
    for name in ("tokens", "tags"):
        if row.get(name) is None:
            raise _Refused("missing_column", f"there is no `{name}`; the row has {_listed(row)}")
        if not isinstance(row[name], list):
            raise _Refused("bad_tags", f"`{name}` is {_kind(row[name])}, not a list")
        columns[name] = tuple(clean_text(_text_of(one, name)) for one in row[name])
    tokens, tags = columns["tokens"], columns["tags"]
    if len(tokens) != len(tags):
        raise _Refused("bad_tags", f"{len(tokens)} tokens have {len(tags)} tags")
    if not tokens:
        raise _Refused("empty_prompt", "`tokens` is empty")
    if not all(tokens) or not all(tags):
        raise _Refused("bad_tags", "a token or a tag is empty")
    return CanonicalRow(tokens=tokens, tags=tags)


def _from_image(row: Mapping[str, Any], folder: Path | None) -> CanonicalRow:
    if row.get("image") is None:
        raise _Refused("missing_column", f"there is no `image`; the row has {_listed(row)}")
    label = _column(row, "label")
    if not label:
        raise _Refused("empty_completion", "`label` is empty")
    try:
        return CanonicalRow(image=image_bytes(row["image"], folder), label=label)
    except ValueError as error:
        raise _Refused("bad_image", f"`image`: {error}") from error


def _from_chat(row: Mapping[str, Any]) -> CanonicalRow:
    name = "messages" if "messages" in row else "conversations"
    if row.get(name) is None:
        raise _Refused("missing_column", f"there is no `messages`; the row has {_listed(row)}")
    if not isinstance(row[name], list):
        raise _Refused("bad_messages", f"`{name}` is {_kind(row[name])}, not a list")
    return _conversation(row[name])


def _conversation(entries: list[Any]) -> CanonicalRow:
    messages = tuple(_message(entry, place) for place, entry in enumerate(entries, start=1))
    if not messages:
        raise _Refused("bad_messages", "there are no messages")
    role, content = messages[-1]
    if role != "assistant":
        raise _Refused(
            "empty_completion", f"the last message is from `{role}`; it must be the assistant's answer"
        )
    if not content:
        raise _Refused("empty_completion", "the last assistant message is empty")
    if not any(before == "user" and said for before, said in messages):
        raise _Refused("empty_prompt", "no user message says anything")
    return CanonicalRow(messages=messages)


def _message(entry: Any, place: int) -> tuple[str, str]:
    if not isinstance(entry, Mapping):
        raise _Refused("bad_messages", f"message {place} is {_kind(entry)}, not an object")
    said_by = entry["role"] if "role" in entry else entry.get("from")
    content = entry["content"] if "content" in entry else entry.get("value")
    role = _ROLES.get(said_by.lower()) if isinstance(said_by, str) else None
    if role is None:
        raise _Refused("bad_messages", f"message {place} has the role {str(said_by)[:40]!r}")
    if isinstance(content, list):
        content = "".join(_part(part, place) for part in content)
    if not isinstance(content, str):
        raise _Refused("bad_messages", f"message {place} has no text")
    return role, clean_text(content)


def _part(part: Any, place: int) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise _Refused("bad_messages", f"message {place} holds a part that is not text")


_BUILDERS = {
    "chat": _from_chat,
    "classification": _from_labelled_text,
    "instruction": _from_instruction,
    "prompt_completion": _from_prompt,
    "question_answer": _from_question,
    "text": _from_text,
    "token_classification": _from_tokens,
}

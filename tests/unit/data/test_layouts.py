from __future__ import annotations

import math
from typing import Any

import pytest

from raytrain.data.layouts import canonicalise, detect_layout
from raytrain.data.rows import CanonicalRow, RowFault

EXCHANGE = (("user", "Why?"), ("assistant", "Because."))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "Why?", "answer": "Because."}, CanonicalRow(messages=EXCHANGE)),
        ({"instruction": "Why?", "input": "", "output": "Because."}, CanonicalRow(messages=EXCHANGE)),
        ({"instruction": "Why?", "input": None, "response": "Because."}, CanonicalRow(messages=EXCHANGE)),
        (
            {"instruction": "Sum up.", "input": "A text.", "output": "Text."},
            CanonicalRow(messages=(("user", "Sum up.\n\nA text."), ("assistant", "Text."))),
        ),
        (
            {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]},
            CanonicalRow(messages=EXCHANGE),
        ),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
            CanonicalRow(messages=EXCHANGE),
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
                    {"role": "assistant", "content": "Because."},
                ]
            },
            CanonicalRow(messages=EXCHANGE),
        ),
        (
            {"prompt": [{"role": "user", "content": "Why?"}], "completion": "Because."},
            CanonicalRow(messages=EXCHANGE),
        ),
        # Whitespace where prompt and completion meet is part of what is learnt.
        ({"prompt": "2 + 2 = ", "completion": " 4"}, CanonicalRow(prompt="2 + 2 = ", completion=" 4")),
        ({"prompt": "Q", "response": "A"}, CanonicalRow(prompt="Q", completion="A")),
        ({"text": "All of it."}, CanonicalRow(text="All of it.")),
        ({"text": 12}, CanonicalRow(text="12")),
        (
            {"question": "Is it so?", "answer": True},
            CanonicalRow(messages=(("user", "Is it so?"), ("assistant", "true"))),
        ),
    ],
)
def test_every_layout_becomes_canonical(row: dict[str, Any], expected: CanonicalRow) -> None:
    assert canonicalise(row, "auto", {}) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "missing_column"),
        ({"a": 1, "b": 2}, "missing_column"),
        ({"question": "Why?", "answer": None}, "missing_column"),
        ({"question": "Why?", "answer": " \n"}, "empty_completion"),
        ({"question": "", "answer": "Because."}, "empty_prompt"),
        ({"question": "Why?", "answer": {"a": 1}}, "wrong_type"),
        ({"question": "Why?", "answer": math.nan}, "wrong_type"),
        ({"prompt": "Q", "completion": ""}, "empty_completion"),
        ({"prompt": " ", "completion": "A"}, "empty_prompt"),
        ({"prompt": [{"role": "user", "content": "x"}], "completion": 3}, "bad_messages"),
        ({"text": "\u200b\x00"}, "empty_completion"),
        ({"messages": None}, "missing_column"),
        ({"messages": "hello"}, "bad_messages"),
        ({"messages": []}, "bad_messages"),
        ({"messages": ["hello"]}, "bad_messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "bad_messages"),
        ({"messages": [{"role": 3, "content": "x"}]}, "bad_messages"),
        ({"messages": [{"role": "user", "content": None}]}, "bad_messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "bad_messages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "empty_completion"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]},
            "empty_completion",
        ),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "empty_prompt"),
    ],
)
def test_every_fault_has_its_reason(row: dict[str, Any], reason: str) -> None:
    found = canonicalise(row, "auto", {})
    assert isinstance(found, RowFault), found
    assert found.reason == reason
    assert found.detail


def test_columns_map_other_names() -> None:
    row = {"problem": "Why?", "solution": "Because.", "answer": "7"}
    found = canonicalise(row, "auto", {"question": "problem", "answer": "solution"})
    assert found == CanonicalRow(messages=EXCHANGE)


def test_a_mapped_column_that_is_missing_is_named() -> None:
    found = canonicalise({"q": "Why?"}, "auto", {"question": "problem"})
    assert isinstance(found, RowFault)
    assert "`problem`" in found.detail
    assert "q" in found.detail


def test_a_stated_layout_is_not_guessed() -> None:
    row = {"text": "a", "question": "b", "answer": "c"}
    assert detect_layout(row) == "question_answer"
    assert canonicalise(row, "text", {}) == CanonicalRow(text="a")

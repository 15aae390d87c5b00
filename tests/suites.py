"""Small suites over a few rows, for tests of what is done with suites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SUMS = [
    {
        "question": f"What is the sum of {i} and three?",
        "answer": str(i + 3),
        "topic": "odd" if i % 2 else "even",
    }
    for i in range(12)
]
CHOICES = [
    {"question": f"{i} and two is", "choices": ["the sum", "five", "a cat"], "answer": i % 3}
    for i in range(9)
]

_KINDS: dict[str, dict[str, Any]] = {
    "sums": {
        "kind": "generation",
        "prompt": {"mode": "completion", "template": "{question}"},
        "answer": "{answer}",
        "scorer": {"name": "number"},
        "generation": {"max_new_tokens": 5},
    },
    "choices": {
        "kind": "multiple_choice",
        "prompt": {"mode": "completion", "template": "{question}"},
        "answer": "{answer}",
        "choices": "choices",
    },
    "texts": {
        "kind": "perplexity",
        "prompt": {"mode": "completion", "template": ""},
        "answer": "{question}",
    },
}


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_suite(
    folder: Path,
    name: str,
    rows: list[dict[str, Any]] | None = None,
    *,
    like: str | None = None,
    **changes: Any,
) -> Path:
    """The YAML file of the suite `sums`, `choices` or `texts` with its rows beside it; `like`: under another name."""
    given = rows if rows is not None else CHOICES if name == "choices" else SUMS
    write_rows(folder / f"{name}.jsonl", given)
    recipe = {
        "suite": name,
        "items": {"source": {"path": f"{name}.jsonl"}},
        **_KINDS[like or name],
        **changes,
    }
    place = folder / f"{name}.yaml"
    place.write_text(yaml.safe_dump(recipe))
    return place

"""What becomes of an item, whoever answered it: a score, or the reason why it has none."""

from __future__ import annotations

import json
from collections.abc import Sequence

from raytrain.errors import line_of
from raytrain.evaluation.items import Item
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.scoring.registry import Scorer
from raytrain.models.decoding.greedy import text_before


def scored_record(item: Item, prompt: str, text: str, stops: Sequence[str], scorer: Scorer) -> ItemRecord:
    """The record of an item to which `text` was answered: cut at the first stop text, and scored."""
    text = text_before(text, stops)
    score, note, error = None, "", None
    try:
        found = scorer(text, item.references)
        score, note = float(found.value), found.note
        if not 0.0 <= score <= 1.0:
            score, error = None, f"the scorer gave {found.value}, which is not from 0 to 1"
    except Exception as raised:  # noqa: BLE001 - a scorer may raise anything; the item is told of
        score, error = None, line_of(raised)
    return ItemRecord(
        item.id, item.digest(), prompt, text, item.references, score, note, error, item.group, item.category
    )


def failed_record(item: Item, why: str, prompt: str | None = None) -> ItemRecord:
    """An item that could not be answered; it counts as 0, and is told of."""
    asked = prompt if prompt is not None else item.prompt
    return ItemRecord(
        item.id,
        item.digest(),
        asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False),
        output="",
        references=item.references,
        score=None,
        error=why,
        group=item.group,
        category=item.category,
        choices=item.choices,
        right=item.right,
    )

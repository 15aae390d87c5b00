"""What a recipe's model has learned: the rows of its sources, as requests and answers."""

from __future__ import annotations

from collections.abc import Iterator

from raytrain.data.layouts import canonicalise
from raytrain.data.rows import CanonicalRow, RowFault
from raytrain.data.section import DataSection
from raytrain.data.sources import open_sources
from raytrain.monitoring.learning.poisoning import Known

MOST_ROWS = 20_000
"""The first of all; likeness to more of them takes minutes."""


def known_rows(section: DataSection) -> list[Known]:
    """Rows that are no exchange are passed over. Raises DataError where a source cannot be read."""
    found: list[Known] = []
    for one in _exchanges(section):
        found.append(one)
        if len(found) == MOST_ROWS:
            break
    return found


def _exchanges(section: DataSection) -> Iterator[Known]:
    for source in open_sources(section.sources):
        for raw in source.rows():
            row = (
                raw.content
                if isinstance(raw.content, RowFault)
                else canonicalise(raw.content, source.section.layout, source.section.columns)
            )
            exchange = None if isinstance(row, RowFault) else _exchange(row)
            if exchange is not None:
                yield exchange


def _exchange(row: CanonicalRow) -> Known | None:
    if row.messages and row.messages[-1][0] == "assistant":
        return Known("\n".join(text for _, text in row.messages[:-1]), row.messages[-1][1])
    if row.prompt is not None and row.completion is not None:
        return Known(row.prompt, row.completion)
    if row.text is not None and row.label is not None:
        return Known(row.text, row.label)
    return None

"""The classes of a classification: which names there are, and the number of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytrain.data.dataset import SPLITS, read_split
from raytrain.data.section import DataSection
from raytrain.errors import DataError
from raytrain.storage.artifact import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterable


def class_names(dataset: Artifact, section: DataSection, column: str) -> list[str]:
    """`data.labels`, or the names that stand in `column` of any split, sorted: numbers by value, all else by text.

    Raises DataError where there are fewer than two.
    """
    if section.labels is not None:
        return list(section.labels)
    found: set[str] = set()
    for split in SPLITS:
        values = read_split(dataset, split).column(column).to_pylist()
        found.update(_flattened(values))
    if len(found) < 2:
        raise DataError(
            f"the rows hold {len(found)} classes; a classification needs two",
            why=f"`{column}` holds only {sorted(found)[0]!r}" if found else f"no row has a `{column}`",
            fix=f"map the column with the classes: data.sources.0.columns: {{{column}: ITS_NAME}}",
        )
    return sorted_names(found)


def sorted_names(names: Iterable[str]) -> list[str]:
    """Names in a fixed order, in which 10 comes after 9."""
    listed = sorted(names)
    if all(name.removeprefix("-").isdecimal() for name in listed):
        return sorted(listed, key=int)
    return listed


def _flattened(values: list[str | list[str] | None]) -> Iterable[str]:
    for value in values:
        if isinstance(value, list):
            yield from value
        elif value is not None:
            yield value

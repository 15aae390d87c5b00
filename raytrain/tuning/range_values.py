"""What a range can give, held against its key when the recipe is read, and not first by a trial."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from raytrain.config.document import Document, apply_overrides
from raytrain.config.recipe import fault_of_value
from raytrain.errors import ConfigError
from raytrain.training.spec import RunSpec
from raytrain.tuning.section import ChoiceRange, FloatRange
from raytrain.tuning.space import Range, Space, key_path


def check_values(space: Space, document: Document, name: str) -> None:
    """Raises ConfigError, with its place, for a range with a value that its key never takes, whatever the others are.

    `document` is the recipe without its search.
    """
    for key, one in space.ranges.items():
        for bound, value in tried_values(one):
            _check_value(space, document, name, key, bound, value)


def tried_values(one: Range) -> Iterator[tuple[str | None, object]]:
    """Values that stand for all of a range, each with the key of the range that names it, where one does."""
    if isinstance(one, ChoiceRange):
        yield from (("choices", value) for value in one.choices)
        return
    yield "low", one.low
    yield "high", one.high
    if isinstance(one, FloatRange):  # whole bounds say nothing of a key that takes whole numbers alone
        yield None, one.low + (one.step or (one.high - one.low) / math.pi)


def _check_value(
    space: Space, document: Document, name: str, key: str, bound: str | None, value: object
) -> None:
    path = key_path(key)
    place = document.origin(("search", "space", key, *([bound] if bound else [])))
    try:
        changed = apply_overrides(document, [f"{key}={json.dumps(value)}"])
    except ConfigError as error:
        if any(key.startswith(f"{other}.") for other in space.ranges):
            return  # which may give it a place
        raise ConfigError(
            f"{place}: search.space.{key}: {error.what}", why=error.why, fix=error.fix
        ) from error
    named = Document({"name": name, **changed.values}, changed.origins, changed.form)
    fault = fault_of_value(RunSpec, named, path)
    if fault is None:
        return
    what, why = fault
    raise ConfigError(
        f"{place}: search.space.{key}: {what} (got {value!r})",
        why=why,
        fix=f"change the range, or its type; docs/reference.md says what `{key}` takes",
    )

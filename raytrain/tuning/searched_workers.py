"""The workers that a trial may have, where `scaling` is searched."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

from pydantic import ValidationError

from raytrain.cluster.section import WorkersSection
from raytrain.config.document import Document, apply_overrides
from raytrain.errors import ConfigError
from raytrain.runs.cost import sections_of
from raytrain.tuning.section import ChoiceRange, FloatRange
from raytrain.tuning.space import Range, Space

_MOST_OF_A_RANGE = 1000


def searched_workers(space: Space, document: Document) -> list[WorkersSection]:
    """Every combination of what is searched of them that is allowed by itself, whatever `when` says; of a range of real
    numbers, or a very long one, its two ends. Empty where nothing is searched of them.

    `document` is the recipe without its search.
    """
    ranges = {key: one for key, one in space.ranges.items() if key.startswith("scaling.")}
    found = []
    for chosen in itertools.product(*(_overrides(key, one) for key, one in ranges.items())):
        given = [text for text in chosen if text is not None]
        with contextlib.suppress(ConfigError, ValidationError):
            found.append(sections_of(apply_overrides(document, given).values)[0])
    return found if ranges else []


def _overrides(key: str, one: Range) -> list[str | None]:
    """None stands for the recipe's own value, where the key is searched only beside some values of others."""
    values: list[Any]
    if isinstance(one, ChoiceRange):
        values = one.choices
    elif isinstance(one, FloatRange) or one.high - one.low > _MOST_OF_A_RANGE:
        values = [one.low, one.high]
    else:
        values = list(range(one.low, one.high + 1, one.step))
    found: list[str | None] = [f"{key}={json.dumps(value)}" for value in values]
    return [*found, None] if one.when else found

"""What every detector is, and what reading a series with one gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raytrain.errors import ConfigError


class Detector(Protocol):
    """Reads a series in the order of time; holds no more of it than it needs."""

    def update(self, value: float) -> bool:
        """Whether the values have just been found to have changed; after which it begins anew."""
        ...


@dataclass(frozen=True)
class Change:
    """A moment at which a detector fired."""

    place: int
    """Index of the value, counted over those that are there."""
    before: float
    """Mean of the values since the change before it."""
    after: float
    """Mean of those that follow, up to the next change."""


def find_changes(values: Sequence[float], detector: Detector) -> list[Change]:
    """Missing values are passed over."""
    there = np.asarray([one for one in values if np.isfinite(one)], np.float64)
    places = [place for place, value in enumerate(there.tolist()) if detector.update(value)]
    found = []
    for i, place in enumerate(places):
        since = places[i - 1] + 1 if i else 0
        until = places[i + 1] + 1 if i + 1 < len(places) else len(there)
        after = there[place + 1 : until]
        found.append(
            Change(
                place,
                float(there[since : place + 1].mean()),
                float(after.mean() if len(after) else there[place]),
            )
        )
    return found


def river_drift() -> Any:
    """Raises ConfigError where river is not installed."""
    try:
        from river import drift
    except ImportError as error:
        raise ConfigError(
            "`streams` needs the package river",
            why="it is not installed; only the extra `drift` brings it",
            fix="pip install 'raytrain[drift]', or take `streams` out",
        ) from error
    return drift

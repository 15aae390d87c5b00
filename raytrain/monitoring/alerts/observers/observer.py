"""What every place that is looked at has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raytrain.monitoring.alerts.alert import Alert


@dataclass(frozen=True)
class Look:
    """What a look found."""

    alerts: Sequence[Alert]
    seen: Any
    """As JSON: what the next look has to know."""


class Observer(Protocol):
    """Several may look at the same, on several machines: what both find has one event, and is told once."""

    @property
    def name(self) -> str: ...

    @property
    def every_s(self) -> float:
        """It is looked no more often than this."""

    def look(self, seen: Any, now: float) -> Look:
        """`seen` is what the last look gave, None where there was none: what was there before the first is no news.

        Raises PlatformError where it cannot be looked at.
        """

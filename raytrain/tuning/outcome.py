"""How a search ended, and what its driver shows while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from raytrain.tuning.forecast import Forecast
from raytrain.tuning.study import RUN_ID, STEPS, TrialView


@dataclass(frozen=True)
class TrialRow:
    """A trial as a person sees it."""

    view: TrialView
    global_step: int
    max_steps: int | None
    value: float | None
    """The first objective, or what was reported of it last."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "number": self.view.number,
            "state": self.view.state,
            "run_id": self.view.attrs.get(RUN_ID),
            "values": self.view.values,
            "objectives": self.view.objectives,
            "last_reported": self.view.last_reported,
            "global_step": self.global_step,
            "spent_s": round(self.view.spent_s, 3),
            "reason": self.view.reason,
            "origin": self.view.attrs.get("origin"),
        }


def rows_of(views: Sequence[TrialView], live: Mapping[int, Mapping[str, Any]]) -> list[TrialRow]:
    """`live` is what Ray Tune was told last of the trials that go on, by number."""
    found = []
    for view in views:
        told = live.get(view.number, {})
        value = view.objectives[0] if view.objectives else told.get("value", view.last_reported)
        step = int(told.get("global_step", view.attrs.get(STEPS, 0)))
        found.append(TrialRow(view, step, told.get("max_steps"), value))
    return found


class TuneObserver(Protocol):
    """Called on the driver, in its main thread, except for `note`, which any thread may call."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def forecast(self, found: Forecast) -> None:
        """What the search will take, before its first trial. Raises RefusedError where nobody agrees to it."""

    def trials(self, rows: Sequence[TrialRow], metrics: Sequence[str], num_trials: int) -> None:
        """All trials as they stand; several times a minute."""


class Unwatched:
    """An observer that looks away."""

    def note(self, text: str) -> None:
        """Nothing to show."""

    def forecast(self, found: Forecast) -> None:
        """Nobody is there to ask."""

    def trials(self, rows: Sequence[TrialRow], metrics: Sequence[str], num_trials: int) -> None:
        """Nothing to show."""


@dataclass(frozen=True)
class TuneResult:
    """`state` is succeeded, or cancelled where it was asked to stop; `ended_by` says why no further trial was made."""

    run_id: str
    state: str
    ended_by: str
    metrics: list[str]
    best: list[TrialRow]
    rows: list[TrialRow]
    forecast: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)
    """best (a recipe), page, artifact; where something was found."""
    digest: str | None = None
    stopped_by: str | None = None

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.view.state] = found.get(row.view.state, 0) + 1
        return found

    def as_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "state": self.state,
            "ended_by": self.ended_by,
            "objectives": self.metrics,
            "counts": self.counts(),
            "best": [row.as_dict() for row in self.best],
            "trials": [row.as_dict() for row in self.rows],
            "forecast": self.forecast,
            "files": self.files,
            "digest": self.digest,
        }

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from raytrain.errors import RefusedError
from raytrain.tuning import search
from raytrain.tuning.forecast import Forecast
from raytrain.tuning.outcome import TuneResult
from raytrain.tuning.placement import Placement
from raytrain.tuning.task import Ended, TrialTask

Objective = Callable[[TrialTask], Ended]


def learned(task: TrialTask) -> Ended:
    loss = abs(task.values["train.learning_rate"] - 0.01)
    return Ended("complete", objectives=[loss], metrics={"eval/loss": loss}, global_step=40)


@dataclass
class InPlaceOfRay:
    """Makes one trial after the other in the thread of `fit`, as Ray Tune would in processes."""

    objective: Objective = learned
    seconds: float = 0.0
    most_cost: float | None = None
    """Above which nobody agrees to a forecast."""
    made: list[int] = field(default_factory=list)
    connected: int = 0
    notes: list[str] = field(default_factory=list)

    def connect(self, *_: Any, **__: Any) -> None:
        self.connected += 1

    def build(self, _context: Any, searcher: Any, _folder: Any) -> Any:
        self.searcher = searcher
        return self

    def fit(self) -> None:
        for i in range(1_000):
            found = self.searcher.suggest(f"t{i}")
            if found == "FINISHED":
                return
            self.made.append(found["task"].number)
            time.sleep(self.seconds)
            self.searcher.on_trial_complete(f"t{i}", {"ended": self.objective(found["task"])})

    def note(self, text: str) -> None:
        self.notes.append(text)

    def forecast(self, found: Forecast) -> None:
        if self.most_cost is not None and (found.cost or 0.0) > self.most_cost:
            raise RefusedError("no trial was begun", why="it costs too much", fix="add --yes")

    def trials(self, *_: Any) -> None:
        """Nothing to show."""


class HeadThere:
    """A head that always answers; to ask Ray for the real one would start one."""

    @classmethod
    def of_cluster(cls, _subject: str) -> HeadThere:
        return cls()

    def look(self) -> None:
        """It is there."""


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> InPlaceOfRay:
    ray = InPlaceOfRay()
    monkeypatch.setattr(search, "connect", ray.connect)
    monkeypatch.setattr(search, "build_tuner", ray.build)
    monkeypatch.setattr(search, "place_trials", lambda *_: Placement(1, "as the test wants it"))
    monkeypatch.setattr(search, "prepare_dataset", lambda *_: None)
    monkeypatch.setattr(search, "HeadWatch", HeadThere)
    monkeypatch.setattr(search, "dashboard", lambda: None)
    monkeypatch.setattr(search, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(search, "_BEAT_EVERY_S", 0.0)
    monkeypatch.setattr(search, "_POLL_S", 0.01)
    return ray


def tune(recipe: Any, ray: InPlaceOfRay) -> TuneResult:
    return search.tune(recipe, observer=ray)

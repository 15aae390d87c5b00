"""Why the processes of trials died, in Ray's own words, which Ray Tune tells its scheduler and not its searcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler


class DeathNotes(FIFOScheduler):  # type: ignore[misc]  # Ray is not typed
    """Schedules as Ray Tune does by itself. Each death stands in `deaths`, by Ray's id of the trial, before the
    searcher is told that the trial is over."""

    def __init__(self, deaths: dict[str, str]) -> None:
        super().__init__()
        self._deaths = deaths

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002 - Ray names it
        told = "its process could not be started" if trial.status == "PENDING" else "its process died"
        last = last_line(trial.error_file)
        self._deaths[trial.trial_id] = f"{told}: {last}" if last else told


def last_line(place: str | None) -> str | None:
    """Of what Ray has written of a trial's errors: the innermost one, without its traceback."""
    if place is None or not Path(place).is_file():
        return None
    lines = Path(place).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), None)

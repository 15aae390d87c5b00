"""Weights & Biases; needs the extra raytrain[wandb]."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from raytrain.runs.record_types import RunRecord, RunState
from raytrain.runs.sinks.extra import require_extra


class WandbSink:
    """One W&B run under our run's id.

    W&B takes steps in rising order only. A resumed run repeats its steps exactly, so the values that are
    there stand and the repeated ones are passed over.
    """

    def __init__(
        self, project: str, mode: Literal["online", "offline", "disabled"], run: RunRecord, folder: Path
    ) -> None:
        require_extra("wandb", "tracking.wandb")
        self._project = project
        self._mode = mode
        self._run = run
        self._folder = folder
        self._wandb_run: Any = None
        self._next_step = 0
        self._written: set[str] = set()

    def open(self) -> None:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._wandb_run = wandb.init(
            project=self._project,
            id=self._run.id,
            name=self._run.id,
            config=self._run.config,
            mode=self._mode,
            dir=str(self._folder),
            resume="allow",
            settings=wandb.Settings(silent=True),
        )
        self._next_step = int(self._wandb_run.starting_step)

    def write(self, global_step: int, time: float, metrics: Mapping[str, float]) -> None:
        if global_step > self._next_step:
            self._next_step, self._written = global_step, set()
        if global_step < self._next_step:
            return
        new = {key: float(value) for key, value in metrics.items() if key not in self._written}
        if new:
            self._wandb_run.log({**new, "_timestamp": time}, step=global_step)
            self._written |= set(new)

    def rewind(self, global_step: int) -> None:
        """The values that are there stand."""

    def close(self, state: RunState) -> None:
        self._wandb_run.finish(exit_code=0 if state == "succeeded" else 1)

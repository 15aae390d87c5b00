"""One trial: a whole run of `raytrain train` with some values of its own, inside a Ray Tune trial."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from raytrain.errors import (
    ClusterError,
    ConfigError,
    DivergedError,
    PlatformError,
    StorageError,
    TrainingError,
    line_of,
)
from raytrain.runs.ownership import Owner
from raytrain.runs.records import Records, open_records
from raytrain.training.observer import Silent
from raytrain.training.trainer import train
from raytrain.tuning.exploit import take_over
from raytrain.tuning.measured import measured
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import TrialMemory
from raytrain.tuning.task import Ended, Ending, TrialTask

_TELL_EVERY_S = 2.0
_FORMER_OWNER_GOES_WITHIN_S = 90.0


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share. Picklable."""

    recipe: TuneRecipe
    study_name: str
    environment: Mapping[str, str]
    """Where the records and the driver's other settings are, for a cluster whose processes do not know."""
    folder: str
    """The driver's, on the same machine: a recipe's relative paths begin there. Ray Tune gives each trial its own."""
    verbose: bool = False


def run_trial(config: dict[str, Any], context: TrialContext) -> None:
    """What Ray Tune starts. Tells the driver how it ended; what raytrain refuses is told, and never raised."""
    import ray.tune

    os.environ.update(context.environment)
    os.chdir(context.folder)
    ray.tune.report({"ended": carry_out(config["task"], context, ray.tune.report)})


@dataclass
class Reached:
    """How far a trial has come, also where something ends it."""

    global_step: int = 0


def carry_out(task: TrialTask, context: TrialContext, tell: Callable[[dict[str, Any]], None]) -> Ended:
    """Train, and say how it ended."""
    reached = Reached()
    try:
        return _ended(task, context, tell, reached)
    except PlatformError as error:
        ending: Ending = "outage" if _is_outage(error, context.recipe) else "failed"
        return Ended(ending, error.line, error.fix, global_step=reached.global_step)
    except Exception as error:  # noqa: BLE001 - told to the driver, which judges it
        # Ray would only try again what fails again, and tell the driver of it as a traceback.
        return Ended("failed", line_of(error))


def _ended(
    task: TrialTask, context: TrialContext, tell: Callable[[dict[str, Any]], None], reached: Reached
) -> Ended:
    """Raises what training, the records and the study raise."""
    records, recipe = open_records(), context.recipe
    memory = TrialMemory(recipe, context.study_name, task.number)
    ended_early = memory.ends_early()
    if ended_early is not None:
        return ended_early
    watcher = TrialWatcher(memory, recipe.metrics[0], tell, reached)
    spec = recipe.trial_spec(task.values)
    wait_for_former_owner(records, task.run_id)
    if task.donor is not None:
        spec = take_over(task.donor, spec, task.run_id)
    try:
        result = train(spec, run_id=task.run_id, observer=watcher, verbose=context.verbose)
    except DivergedError as error:
        memory.report(math.nan, reached.global_step + 1)
        return Ended("diverged", error.line, global_step=reached.global_step)
    if result.state != "succeeded":
        return replace(watcher.ended or Ended("stopped", "asked to stop"), global_step=result.global_step)
    metrics = measured(records, spec, result)
    missing = [one for one in recipe.metrics if one not in metrics]
    for one in missing:
        if one in result.metrics:  # it is reported, and no number
            return Ended("diverged", f"{one} is {result.metrics[one]}", global_step=result.global_step)
    if missing:
        return Ended("unreported", missing[0], metrics=metrics, global_step=result.global_step)
    objectives = [metrics[one] for one in recipe.metrics]
    return Ended("complete", objectives=objectives, metrics=metrics, global_step=result.global_step)


def _is_outage(error: PlatformError, recipe: TuneRecipe) -> bool:
    if isinstance(error, ClusterError):  # a searched number of workers may be more than there ever are
        return not any(key.startswith("scaling.") for key in recipe.search.space)
    return isinstance(error, StorageError)


class TrialWatcher(Silent):
    """Observes the run: tells Ray Tune how it goes, and asks the study whether it should go on."""

    def __init__(
        self, memory: TrialMemory, metric: str, tell: Callable[[dict[str, Any]], None], reached: Reached
    ) -> None:
        self._memory = memory
        self._reached = reached
        self._metric = metric
        self._tell = tell
        self._told_at = -_TELL_EVERY_S
        self._max_steps = 0
        self.ended: Ended | None = None
        """How it ends early, where it does."""

    def plan(self, *, max_steps: int, **_others: Any) -> None:
        self._max_steps = max_steps

    def metrics(self, global_step: int, metrics: dict[str, float]) -> None:
        self._reached.global_step = global_step
        value = metrics.get(self._metric)
        if value is not None:
            self._judge(value, global_step)
        if value is not None and not math.isfinite(value):
            value = None
        now = time.monotonic()
        if value is None and now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        told = {"state": "running", "global_step": global_step, "max_steps": self._max_steps}
        self._tell(told if value is None else {**told, "value": value})

    def _judge(self, value: float, global_step: int) -> None:
        is_worse = self._memory.report(value, global_step)
        if global_step >= self._max_steps:
            return
        if not math.isfinite(value):
            told = f"{self._metric} is {value} at step {global_step}"
            self._end(Ended("diverged", told, global_step=global_step))
        elif is_worse:
            told = f"{self._metric} {value:.6g} at step {global_step}: others were better by then"
            self._end(Ended("pruned", told, global_step=global_step))

    def _end(self, ended: Ended) -> None:
        if self.ended is None:
            self._memory.end_early(ended)
            self.ended = ended

    def stop_reason(self) -> str | None:
        return None if self.ended is None else self.ended.reason


def wait_for_former_owner(records: Records, run_id: str) -> None:
    """A trial whose search was killed may live on for some seconds; its successor waits for its end.

    Raises TrainingError where it goes on for longer.
    """
    deadline = time.monotonic() + _FORMER_OWNER_GOES_WITHIN_S
    while _is_carried_by_another(records, run_id):
        if time.monotonic() > deadline:
            raise TrainingError(
                f"run {run_id} is still carried by another process",
                why="a search that was started earlier has not ended with its trials",
                fix=f"end it: `raytrain runs stop {run_id}`, then give the command again",
            )
        time.sleep(0.5)


def _is_carried_by_another(records: Records, run_id: str) -> bool:
    try:
        run = records.get_run(run_id)
    except ConfigError:  # it has not begun yet
        return False
    return run.state == "running" and run.owner != Owner.current()

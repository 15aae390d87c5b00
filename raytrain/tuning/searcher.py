"""The search as Ray Tune sees it: it is asked for the next trial, and told how each one went.

Ray's own OptunaSearch keeps in the driver's memory which trial is which, tells trials that were ended early as
complete, and cannot take up what a killed driver left running; so this one speaks with the study itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher

from raytrain.errors import PlatformError, TrainingError
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.study import SPENT, STEPS, StudyMemory, unreported_objective
from raytrain.tuning.task import Ended, TrialTask

_DIED = "its process died"
_NARROW = "narrow search.space, most often to lower values of train.learning_rate"


@dataclass
class Live:
    """A trial that is being made."""

    task: TrialTask
    since: float
    spent_before_s: float
    last: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spent_s(self) -> float:
        return self.spent_before_s + time.monotonic() - self.since


class StudySearcher(Searcher):  # type: ignore[misc]  # Ray is not typed
    """Ray Tune calls from its own thread, the driver looks on from another."""

    def __init__(
        self, memory: StudyMemory, *, max_concurrent: int, on_ended: Callable[[TrialTask, str], None],
        on_note: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__()
        self.memory = memory
        self.error: PlatformError | None = None
        self.fault: Exception | None = None
        self.stopped: str | None = None
        self.deaths: dict[str, str] = {}
        """Why a trial's process died, by Ray's id of the trial."""
        self._max_concurrent = max_concurrent
        self._on_ended = on_ended
        self._note = on_note
        self._chooser = Chooser(memory, on_note)
        self._live: dict[str, Live] = {}
        self._lock = threading.Lock()

    @property
    def num_left(self) -> int:
        return self._chooser.num_left

    def live(self) -> list[Live]:
        with self._lock:
            return list(self._live.values())

    def note_spent(self) -> None:
        """Keep what the trials that go on have taken so far: a kill takes the rest of it."""
        for one in self.live():
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # it has just ended
                self.memory.note(one.task.number, {SPENT: one.spent_s})

    def stop(self, reason: str) -> None:
        """Begin no further trial."""
        self.stopped = self.stopped or reason

    # What Ray Tune calls

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.stopped or self.error or self.fault:
            return str(Searcher.FINISHED)
        if len(self._live) >= self._max_concurrent:
            return None
        try:
            found = self._chooser.next()
        except PlatformError as error:
            self.error = error
            return str(Searcher.FINISHED)
        if found == "finished":
            return str(Searcher.FINISHED)
        if found == "wait":
            return None
        assert isinstance(found, TrialTask)
        before = self.memory.trial(found.number).spent_s
        with self._lock:
            self._live[trial_id] = Live(found, time.monotonic(), before)
        return {"task": found}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        live = self._live.get(trial_id)
        if live is not None:
            live.last = result

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        with self._lock:
            live = self._live.pop(trial_id, None)
        if live is None:
            return
        ended = (result or {}).get("ended") or live.last.get("ended")
        try:
            self._settle(live, ended, self.deaths.pop(trial_id, _DIED) if error else None)
        except PlatformError as raised:
            self.error = self.error or raised
        except Exception as raised:  # noqa: BLE001 - the driver raises it; Ray would start the trial again for it
            self.fault = raised

    def save(self, checkpoint_path: str) -> None:
        """Everything is in the study; Ray wants a file."""
        Path(checkpoint_path).write_text(f"study {self.memory.name}\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read back: see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray keeps a copy beside its own state, which nobody reads: the study is no part of it."""
        return {"study": self.memory.name}

    # Telling the study

    def _settle(self, live: Live, ended: Ended | None, died: str | None) -> None:
        """The driver hears what the study says of the trial, also where it was one failure too many."""
        try:
            self._tell(live, ended, died)
        finally:
            self._on_ended(live.task, self.memory.trial(live.task.number).state)

    def _tell(self, live: Live, ended: Ended | None, died: str | None) -> None:
        task = live.task
        if ended is None:
            if (self.stopped or self.error) and died is None:
                self.memory.note(task.number, {SPENT: live.spent_s})
                return  # the search was stopped; the trial stays as it is, and the same command takes it up
            step = int(live.last.get("global_step", 0))
            ended = Ended("failed", died or _DIED, global_step=step)
        reason = ended.reason or ""
        self.memory.note(task.number, {SPENT: live.spent_s, STEPS: ended.global_step})
        if ended.state == "complete":
            self.memory.note(task.number, {"metrics": dict(ended.metrics)})
            self.memory.tell_complete(task.number, ended.objectives)
            self._chooser.succeeded()
        elif ended.state == "pruned":
            self.memory.tell_pruned(task.number, reason)
            self._chooser.succeeded()
        elif ended.state == "diverged":
            self.memory.tell_pruned(task.number, reason)
            self._note(f"trial {task.number} diverged: {reason}")
            if not self.memory.counts()["complete"]:  # else the ranges are wide, and the sampler learns of it
                self._fail(task.number, reason, _NARROW)
        elif ended.state == "stopped":
            if self.stopped is None:  # by somebody who stopped this run alone
                self.memory.tell_failed(task.number, reason)
        elif ended.state == "unreported":
            self._tell_unreported(task.number, reason, ended)
        elif ended.state == "outage":
            self._note(f"trial {task.number} was interrupted, and is taken up again: {reason}")
            self._chooser.take_up_again(task.number)
            self._fail(task.number, reason, ended.fix)
        else:
            self.memory.tell_failed(task.number, reason)
            self._note(f"trial {task.number} failed: {reason}")
            self._fail(task.number, reason, ended.fix)

    def _tell_unreported(self, number: int, missing: str, ended: Ended) -> None:
        """It ends the search, unless other trials have reported it."""
        reason = f"{missing} was not reported"
        self.memory.tell_failed(number, reason)
        if not self.memory.counts()["complete"]:
            self.error = unreported_objective(missing, list(ended.metrics))
            return
        self._note(f"trial {number} failed: {reason}")
        self._fail(number, reason, None)

    def _fail(self, number: int, reason: str, fix: str | None) -> None:
        try:
            self._chooser.failed(number, reason)
        except TrainingError as raised:
            raise TrainingError(raised.what, why=raised.why, fix=fix or raised.fix) from raised

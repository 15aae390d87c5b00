"""`raytrain tune`: Ray Tune makes the trials that the study asks for, until there are enough or the budget is used."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from raytrain.cluster.connection import connect
from raytrain.cluster.head import HeadWatch
from raytrain.data.prepare import prepare_dataset
from raytrain.errors import ConfigError, TrainingError
from raytrain.runs.carrying import carried
from raytrain.runs.ownership import Owner
from raytrain.runs.record_types import RunState
from raytrain.runs.records import Records, open_records
from raytrain.runs.run_ids import choose_run_id, known_runs
from raytrain.runs.signals import SignalWatch
from raytrain.storage.database import database_url
from raytrain.storage.home import raytrain_home, run_folder
from raytrain.training.checkpoint_store import folder_of
from raytrain.tuning.beforehand import LookAhead, told_beforehand
from raytrain.tuning.budget import GB, Spent, exhausted
from raytrain.tuning.chooser import num_trials
from raytrain.tuning.disk import CAME_TO_NOTHING, TrialDisk
from raytrain.tuning.measured import seconds_of
from raytrain.tuning.outcome import TrialRow, TuneObserver, TuneResult, Unwatched, rows_of
from raytrain.tuning.placement import Placement
from raytrain.tuning.results import write_results
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import StudyMemory
from raytrain.tuning.task import TrialTask, probe_run_id
from raytrain.tuning.trial import TrialContext
from raytrain.tuning.trial_costs import TrialCosts
from raytrain.tuning.tuner import build_tuner, dashboard, explain_failure, place_trials
from raytrain.tuning.warm_start import warm_start

_POLL_S = 0.25
_BEAT_EVERY_S = 5.0
_LOOK_EVERY_S = 2.0
_STOPPED = "asked to stop by `raytrain runs stop`"
_HANDED_ON = ("HF_HUB_OFFLINE", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER")


def tune(
    recipe: TuneRecipe,
    *,
    address: str | None = None,
    fresh: bool = False,
    observer: TuneObserver | None = None,
    verbose: bool = False,
) -> TuneResult:
    """Search to the end of the budget; called in the main thread of the driver, whose signals stop it.

    The same recipe goes on with its search, also where it was killed; `fresh` begins another. Raises the PlatformError
    that ended it.
    """
    records = open_records()
    known = known_runs(records, "tune", recipe.run_id, recipe.spec.name)
    run_id = choose_run_id(known, recipe.run_id, fresh=fresh)
    records.create_run(
        run_id,
        kind="tune",
        name=recipe.spec.name,
        config=recipe.to_dict(),
        config_digest=recipe.identity,
        storage_uri=str(folder_of(recipe.spec.storage.location, run_id)),
    )
    search = _Search(recipe, run_id, records, observer or Unwatched(), verbose)
    with carried(records, run_id, lambda: search.num_ended):
        with SignalWatch() as watch:
            search.execute(watch, address)
        return search.conclude(watch.signal_name)


class _Search:
    """One command's part of a search; used by the driver's main thread."""

    def __init__(
        self, recipe: TuneRecipe, run_id: str, records: Records, observer: TuneObserver, verbose: bool
    ) -> None:
        self.recipe = recipe
        self.num_trials = num_trials(recipe)
        self.num_ended = 0
        self.run_id = run_id
        self.records = records
        self.observer = observer
        self.verbose = verbose
        self.owner = Owner.current()
        self.memory = StudyMemory(recipe, run_id)
        self.disk = TrialDisk(recipe.spec.storage.location, self.memory)
        self._began = time.monotonic()
        self._before_s = float(self.memory.kept("search_s") or 0.0)
        self._costs = TrialCosts(recipe)
        self._searcher: Any = None
        self._ended_by: str | None = None
        self._beat_at = self._looked_at = -1e9

    def note(self, text: str) -> None:
        self.records.add_event(self.run_id, "note", text)
        self.observer.note(text)

    def _is_done(self) -> bool:
        counts = self.memory.counts()
        self.num_ended = counts.total() - counts["running"] - counts["waiting"]
        return self.num_ended >= self.num_trials and not counts["running"]

    def _is_stopped(self) -> bool:
        if self._ended_by is None and self.records.stop_requested(self.run_id):
            self._ended_by = _STOPPED
        return self._ended_by is not None

    # From the start to the end

    def execute(self, watch: SignalWatch, address: str | None) -> None:
        if self._is_done():
            self._ended_by = "all trials are made"
            return
        with watch.kept_through():  # Ray puts its own handler of SIGTERM, which exits at once, over ours
            connect(address, verbose=self.verbose)
        placement = place_trials(self.recipe, self.num_trials)
        for text in (*told_beforehand(self.recipe, placement, self.memory.trials()), dashboard()):
            if text:
                self.note(text)
        prepare_dataset(self.recipe.spec.data, self.recipe.spec.storage.location)
        if watch.signal_name is not None or self._is_stopped():
            return
        if not self.memory.trials() and self.recipe.search.probe_steps:
            ahead = LookAhead(self.recipe, self.run_id, self.records, self.memory, self.note, self.observer)
            stopped_by = ahead.look(placement.at_once, watch, verbose=self.verbose)
            if stopped_by is not None:
                if not self._is_stopped():
                    self._ended_by = f"asked to stop by {stopped_by}"
                return
        self._warm_start()
        self._make_trials(placement, watch)

    def _warm_start(self) -> None:
        if self.recipe.scheduler == "pbt" or self.recipe.search.sampler == "grid" or self.memory.kept("warm"):
            return
        for text in warm_start(self.memory, self.records):
            self.note(text)
        self.memory.keep("warm", True)

    def _make_trials(self, placement: Placement, watch: SignalWatch) -> None:
        from raytrain.tuning.searcher import StudySearcher

        self._searcher = searcher = StudySearcher(
            self.memory, max_concurrent=placement.at_once, on_ended=self._on_ended, on_note=self.note
        )
        self.disk.drop_left_behind()
        self._costs.probe_s = seconds_of(self.records, probe_run_id(self.run_id))
        self._look()  # nothing is begun where an earlier command has used the budget
        failure: list[BaseException] = []

        def fit() -> None:
            try:
                build_tuner(self._context(), searcher, run_folder(self.run_id)).fit()
            except BaseException as error:  # noqa: BLE001 - judged by the thread that follows
                failure.append(error)

        thread = threading.Thread(target=fit, name="ray-tune-fit", daemon=True)
        thread.start()
        head = HeadWatch.of_cluster(f"search {self.run_id}")
        while thread.is_alive():
            self._follow(watch)
            head.look()
            thread.join(_POLL_S)
        self._look(now=True)
        for fault in (searcher.error, searcher.fault):
            if fault is not None:
                raise fault
        if failure:
            raise explain_failure(failure[0], self.run_id) from failure[0]
        self._ended_by = searcher.stopped or "all trials are made"

    def _context(self) -> TrialContext:
        handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        own = {"RAYTRAIN_HOME": str(raytrain_home()), "RAYTRAIN_DATABASE": database_url()}
        return TrialContext(self.recipe, self.run_id, {**handed_on, **own}, str(Path.cwd()), self.verbose)

    # While it goes on

    def _follow(self, watch: SignalWatch) -> None:
        now = time.monotonic()
        searcher = self._searcher
        if now - self._beat_at >= _BEAT_EVERY_S:
            self._beat_at = now
            self._beat()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._look()
            if searcher.stopped is None and self.records.stop_requested(self.run_id):
                searcher.stop(_STOPPED)
        if watch.signal_name is not None:
            searcher.stop(f"asked to stop by {watch.signal_name}")
        if searcher.stopped is not None or searcher.error is not None:
            for one in searcher.live():
                self._stop_trial(one.task)

    def _beat(self) -> None:
        self._is_done()
        held = self.records.heartbeat(
            self.run_id, self.owner, global_step=self.num_ended, max_steps=self.num_trials
        )
        self.memory.keep("search_s", self._search_s())
        self._searcher.note_spent()
        if not held:
            self._searcher.error = TrainingError(
                f"search {self.run_id} was taken over by another process",
                why="this one was silent for so long that it counted as dead",
                fix="let the other one go on; `raytrain runs show` names it",
            )

    def _look(self, *, now: bool = False) -> None:
        """Show the trials, and hold them against the budget."""
        self._looked_at = time.monotonic()
        budget = self.recipe.search.budget
        rows = self.rows()
        self.observer.trials(rows, self.recipe.metrics, self.num_trials)
        limit = None if budget.disk_gb is None else budget.disk_gb * GB
        used = 0 if limit is None else self.disk.make_room(limit)
        trials = [self._costs.of_trial(row.view, self._spent_s(row)) for row in rows]
        reason = exhausted(budget, Spent(self._search_s(), [self._costs.of_probe(), *trials], used))
        if reason is not None and not now:
            self._searcher.stop(reason)

    def _search_s(self) -> float:
        return self._before_s + time.monotonic() - self._began

    def _spent_s(self, row: TrialRow) -> float:
        live = {one.task.number: one.spent_s for one in self._searcher.live()}
        return float(live.get(row.view.number, row.view.spent_s))

    def _stop_trial(self, task: TrialTask) -> None:
        """Have it save and end, as soon as it has begun."""
        with contextlib.suppress(ConfigError):  # it has no record yet
            if not self.records.stop_requested(task.run_id):
                self.records.request_stop(task.run_id)

    def _on_ended(self, task: TrialTask, state: str) -> None:
        """In the thread of Ray Tune. Nobody goes on from a trial that came to nothing."""
        if state in CAME_TO_NOTHING:
            self.disk.drop_all(task.run_id, task.number)

    def rows(self) -> list[TrialRow]:
        live = [] if self._searcher is None else self._searcher.live()
        return rows_of(self.memory.trials(), {one.task.number: one.last for one in live})

    # At the end

    def conclude(self, signal_name: str | None) -> TuneResult:
        ended_by = self._ended_by or f"asked to stop by {signal_name}"
        is_stopped = signal_name is not None or ended_by.startswith("asked to stop")
        state: RunState = "cancelled" if is_stopped else "succeeded"
        self.memory.keep("search_s", self._search_s())
        rows = self.rows()
        numbers = [one.number for one in self.memory.best()]
        if not numbers and not is_stopped:
            raise TrainingError(
                f"search {self.run_id}: no trial has come to its end",
                why=f"{ended_by}; of {len(rows)} trials the last says: "
                f"{next((row.view.reason for row in reversed(rows) if row.view.reason), 'nothing')}",
                fix="raise the budget, or narrow search.space; the same command goes on",
            )
        best = [rows[number] for number in numbers]
        kept = self.memory.kept("forecast")
        result = TuneResult(
            self.run_id, state, ended_by, self.recipe.metrics, best, rows, kept, stopped_by=signal_name
        )
        result = write_results(result, self.recipe, self.memory, self.records)
        reason = ended_by if is_stopped or ended_by != "all trials are made" else None
        self.records.set_state(self.run_id, state, reason, global_step=len(rows))
        return result

"""One trial's way from its values to how it ended, with something in place of the training itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from conftest_search import RecipeMaker

from raytrain.errors import ClusterError, DataError, DivergedError, PlatformError, StorageError
from raytrain.training.outcome import TrainResult
from raytrain.tuning import trial
from raytrain.tuning.chooser import Chooser
from raytrain.tuning.study import StudyMemory
from raytrain.tuning.task import Ended, TrialTask
from raytrain.tuning.trial import TrialContext, TrialWatcher, carry_out

pytestmark = pytest.mark.whole

Training = Callable[[TrialWatcher], TrainResult]


class Trials:
    """A study whose trials are made here, one after the other."""

    def __init__(self, recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recipe = recipe
        self.memory = StudyMemory(recipe, "s")
        self.num_trained = 0
        self._chooser = Chooser(self.memory, print)
        self._monkeypatch = monkeypatch

    def next(self) -> TrialTask:
        task = self._chooser.next()
        assert isinstance(task, TrialTask)
        return task

    def make(self, task: TrialTask, training: Training) -> Ended:
        def train(_spec: Any, *, run_id: str, observer: TrialWatcher, verbose: bool) -> TrainResult:
            assert (run_id, verbose) == (task.run_id, False)
            self.num_trained += 1
            observer.plan(max_steps=40)
            return training(observer)

        self._monkeypatch.setattr(trial, "train", train)
        return carry_out(task, TrialContext(self.recipe, "s", {}, "."), lambda _told: None)


@pytest.fixture
def trials(tune_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch) -> Trials:
    return Trials(tune_recipe(), monkeypatch)


def test_an_objective_that_is_no_number_at_the_end_is_a_diverged_trial(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "measured", lambda *_: {"train/loss": 1.0})

    def training(watcher: TrialWatcher) -> TrainResult:
        watcher.metrics(40, {"eval/loss": math.inf})
        return TrainResult("r", "succeeded", None, None, 40, {"eval/loss": math.inf, "train/loss": 1.0})

    ended = trials.make(trials.next(), training)
    assert (ended.state, ended.reason, ended.global_step) == ("diverged", "eval/loss is inf", 40)


def test_an_objective_that_is_no_number_on_the_way_ends_the_trial_and_the_sampler_learns_of_it(
    trials: Trials,
) -> None:
    task = trials.next()

    def training(watcher: TrialWatcher) -> TrainResult:
        watcher.metrics(5, {"eval/loss": 0.5})
        assert watcher.stop_reason() is None
        watcher.metrics(10, {"eval/loss": math.nan})
        assert watcher.stop_reason() == "eval/loss is nan at step 10"
        return TrainResult("r", "cancelled", None, None, 10)

    assert trials.make(task, training).state == "diverged"
    trials.memory.tell_pruned(task.number, "as it says")
    (told,) = trials.memory.study.trials
    assert told.intermediate_values[10] == math.inf, "worse than any number, and in order with them"
    assert trials.memory.trials()[0].last_reported == 0.5


def test_a_diverged_trial_that_is_killed_before_its_driver_hears_of_it_stays_so(trials: Trials) -> None:
    task = trials.next()

    class Killed(BaseException):
        pass

    def training(watcher: TrialWatcher) -> TrainResult:
        watcher.metrics(10, {"eval/loss": math.nan})
        raise Killed

    with pytest.raises(Killed):
        trials.make(task, training)
    again = trials.make(task, training)
    assert (again.state, again.reason, again.global_step) == ("diverged", "eval/loss is nan at step 10", 10)
    assert trials.num_trained == 1


@pytest.mark.parametrize(
    ("error", "space", "state"),
    [
        (StorageError, "train.weight_decay", "outage"),
        (ClusterError, "train.weight_decay", "outage"),
        (ClusterError, "scaling.num_workers", "failed"),
        (DataError, "train.weight_decay", "failed"),
    ],
)
def test_an_outage_is_no_fault_of_the_trial(
    tune_recipe: RecipeMaker,
    monkeypatch: pytest.MonkeyPatch,
    error: type[PlatformError],
    space: str,
    state: str,
) -> None:
    def training(_watcher: TrialWatcher) -> TrainResult:
        raise error("it is away", why="nobody answers", fix="start it")

    ranges = {space: {"type": "choice", "choices": [1, 2]}}
    trials = Trials(tune_recipe(space=ranges), monkeypatch)
    ended = trials.make(trials.next(), training)
    assert (ended.state, ended.reason, ended.fix) == (state, "it is away: nobody answers", "start it")


def test_a_trial_whose_gradients_are_no_numbers_has_diverged(trials: Trials) -> None:
    def training(watcher: TrialWatcher) -> TrainResult:
        watcher.metrics(7, {"train/loss": 3.0})
        raise DivergedError("NaN gradients in 3 steps in a row", why="layers: lm_head", fix="lower it")

    ended = trials.make(trials.next(), training)
    assert (ended.state, ended.global_step) == ("diverged", 7)
    assert ended.reason == "NaN gradients in 3 steps in a row: layers: lm_head"

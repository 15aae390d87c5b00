"""The memory of a search: an Optuna study in the records database. Whatever is killed, it is whole.

A trial is `running` from the moment its values are chosen until its result is told; a search that begins again takes up
those that still are. What a trial is besides (its run, its reason, its cost) stands in its user attributes.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from raytrain.errors import ConfigError
from raytrain.storage.database import database_url
from raytrain.tuning.samplers import build_sampler
from raytrain.tuning.schedulers import ENDING_EARLY, build_pruner
from raytrain.tuning.section import ObjectiveSection
from raytrain.tuning.space import Params, Values
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study_storage import open_storage
from raytrain.tuning.task import Ended

if TYPE_CHECKING:
    import optuna

TrialState = Literal["running", "complete", "pruned", "failed", "waiting"]
# User attributes of a trial.
REASON, ORIGIN, RUN_ID, SPENT, STEPS = "reason", "origin", "run_id", "spent_s", "global_step"
ENDS_EARLY = "ends_early"
# Of a population's trial.
MEMBER, GENERATION, PARENT = "member", "generation", "parent"

_STATES: dict[str, TrialState] = {
    "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "WAITING": "waiting",
}  # fmt: skip


@dataclass(frozen=True)
class TrialView:
    """A trial as the storage has it."""

    number: int
    state: TrialState
    values: Values
    objectives: list[float] | None
    last_reported: float | None
    attrs: dict[str, Any]

    @property
    def reason(self) -> str | None:
        return self.attrs.get(REASON)

    @property
    def spent_s(self) -> float:
        return float(self.attrs.get(SPENT, 0.0))


class StudyMemory:
    """The study of one search. Used by the driver; trials open their own with `open_storage`."""

    def __init__(self, recipe: TuneRecipe, name: str, storage: Any = None) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.recipe = recipe
        self.name = name
        storage = open_storage() if storage is None else storage
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["minimize" if one.mode == "min" else "maximize" for one in recipe.objectives],
            load_if_exists=True,
            pruner=build_pruner(recipe),
        )
        num_known = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = build_sampler(
            recipe.search, num_known, ends_early=recipe.scheduler in ENDING_EARLY
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.set_metric_names(recipe.metrics)  # plots and the dashboard show them

    # Choosing

    def ask(self) -> tuple[int, Values]:
        """Begin a trial: its number and the values of its keys."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask()
            return trial.number, self.recipe.space.suggest(trial)

    def choose_rest(self, number: int) -> Values:
        """The values of a trial that was begun; a command that was killed may have chosen a part of them."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = optuna.Trial(self.study, trial_id_of(self.study, number))
            return self.recipe.space.suggest(trial)

    def enqueue(self, params: Params, origin: str, **attrs: Any) -> bool:
        """Have these parameters tried next; False where a trial has them already."""
        before = len(self.study.get_trials(deepcopy=False))
        self.study.enqueue_trial(params, user_attrs={ORIGIN: origin, **attrs}, skip_if_exists=True)
        return len(self.study.get_trials(deepcopy=False)) > before

    def enqueue_as_it_is(self, params: Params, attrs: Mapping[str, Any]) -> None:
        """Have these parameters tried next, also where a trial has them already; the sampler adds what is missing."""
        self.study.enqueue_trial(params, user_attrs=dict(attrs))

    def params(self, number: int) -> Params:
        """A trial's parameters, as Optuna stores them."""
        return dict(self.study.get_trials(deepcopy=False)[number].params)

    # Telling

    def tell_complete(self, number: int, objectives: Sequence[float]) -> None:
        self.study.tell(number, list(objectives))

    def tell_pruned(self, number: int, reason: str) -> None:
        """The sampler learns from what the trial reported last, where it did."""
        import optuna

        self.note(number, {REASON: reason})
        if len(self.recipe.objectives) > 1:  # Optuna knows no values on the way of several objectives
            self.study.tell(number, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(number, state=optuna.trial.TrialState.PRUNED)

    def tell_failed(self, number: int, reason: str) -> None:
        import optuna

        self.note(number, {REASON: reason})
        self.study.tell(number, state=optuna.trial.TrialState.FAIL)

    def note(self, number: int, attrs: Mapping[str, Any]) -> None:
        """Keep facts of a trial, before its result is told."""
        trial_id = trial_id_of(self.study, number)
        for key, value in attrs.items():
            self.study._storage.set_trial_user_attr(trial_id, key, value)

    def keep(self, key: str, value: Any) -> None:
        """Keep a fact of the whole search."""
        self.study.set_user_attr(key, value)

    def kept(self, key: str) -> Any:
        return self.study.user_attrs.get(key)

    # Reading

    def trials(self) -> list[TrialView]:
        """All trials, by number."""
        return [self._view(one) for one in self.study.get_trials(deepcopy=False)]

    def trial(self, number: int) -> TrialView:
        return self._view(self.study.get_trials(deepcopy=False)[number])

    def counts(self) -> Counter[TrialState]:
        """Trials by state; cheap, however many there are."""
        return Counter(_STATES[one.state.name] for one in self.study.get_trials(deepcopy=False))

    def running(self) -> list[TrialView]:
        """Those whose result nobody has told."""
        return [one for one in self.trials() if one.state == "running"]

    def best(self) -> list[TrialView]:
        """The best trial, or the Pareto front in the order of the first objective; empty where none has completed."""
        if not self.counts()["complete"]:
            return []
        found = [self._view(one) for one in self.study.best_trials]
        sign = 1 if self.recipe.objectives[0].mode == "min" else -1
        found.sort(key=lambda one: (sign * (one.objectives or [0.0])[0], one.number))
        return found if len(self.recipe.objectives) > 1 else found[:1]

    def _view(self, trial: optuna.trial.FrozenTrial) -> TrialView:
        reported = {step: one for step, one in trial.intermediate_values.items() if math.isfinite(one)}
        fixed = trial.system_attrs.get("fixed_params", {})
        return TrialView(
            trial.number,
            _STATES[trial.state.name],
            self.recipe.space.values_of(trial.params or fixed),
            list(trial.values) if trial.values is not None and trial.state.name == "COMPLETE" else None,
            reported[max(reported)] if reported else None,
            dict(trial.user_attrs),
        )


class TrialMemory:
    """What one trial says and asks while it runs."""

    def __init__(self, recipe: TuneRecipe, study_name: str, number: int, storage: Any = None) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.load_study(
            study_name=study_name,
            storage=_storage_of_process(database_url()) if storage is None else storage,
            sampler=optuna.samplers.RandomSampler(),  # nothing is sampled here
            pruner=build_pruner(recipe),
        )
        self._is_single = len(recipe.objectives) == 1
        # Not nan, which CMA-ES cannot put in order.
        self._worst = math.inf if recipe.objectives[0].mode == "min" else -math.inf
        self._trial = optuna.Trial(study, trial_id_of(study, number))

    def report(self, value: float, global_step: int) -> bool:
        """Tell of an objective on the way; true where the trial should end. Of one that is no number the sampler learns
        that it is worse than all others."""
        if not self._is_single:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a step that a resumed run makes again is told again
            self._trial.report(value if math.isfinite(value) else self._worst, global_step)
        return bool(self._trial.should_prune())

    def end_early(self, ended: Ended) -> None:
        """Keep that the trial ends, and why: it may be killed before its driver hears of it."""
        kept = {"state": ended.state, "reason": ended.reason, "global_step": ended.global_step}
        self._trial.set_user_attr(ENDS_EARLY, kept)

    def ends_early(self) -> Ended | None:
        """Why and where this trial ended, as an earlier process of it has decided."""
        kept = self._trial.user_attrs.get(ENDS_EARLY)
        return None if kept is None else Ended(**kept)


@functools.cache
def _storage_of_process(url: str) -> Any:
    """One for all trials that a process makes, one after the other: what has ended is read once.

    With a new one for each, the time of a trial grew with their number: from 0.1 s to 0.2 s after 200.
    """
    import optuna

    return optuna.storages.get_storage(open_storage(url))


def trial_id_of(study: Any, number: int) -> int:
    """The storage's own id of a trial."""
    found: int = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return found


def objectives_from(
    objectives: Sequence[ObjectiveSection], metrics: Mapping[str, float]
) -> tuple[list[float], list[str]]:
    """The values of a finished trial, and the metrics among them that it did not report."""
    missing = [one.metric for one in objectives if one.metric not in metrics]
    return [metrics[one.metric] for one in objectives if one.metric in metrics], missing


def unreported_objective(missing: str, reported: Sequence[str]) -> ConfigError:
    """An objective that no trial will ever report."""
    from raytrain.config.recipe import nearest

    near = nearest(missing, reported)
    return ConfigError(
        f"search.objectives: no trial reports `{missing}`",
        why=f"reported are: {', '.join(sorted(reported))}",
        fix=f"did you mean `{near}`?" if near else "name one of these",
    )

"""Which trial comes next: one that was left running, one of a population or a grid, or a new one from the sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from raytrain.errors import PlatformError, TrainingError
from raytrain.tuning.population import Member, next_generation, num_generations
from raytrain.tuning.space import Values
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import GENERATION, MEMBER, ORIGIN, PARENT, RUN_ID, StudyMemory, TrialView
from raytrain.tuning.task import Donor, TrialTask, trial_run_id

Next = TrialTask | Literal["wait", "finished"]


def num_trials(recipe: TuneRecipe) -> int:
    """Trials of a whole search: a population's and a grid's are what they are, whatever `search.num_trials` says."""
    if recipe.scheduler == "pbt":
        return recipe.search.population.size * num_generations(recipe)
    if recipe.search.sampler == "grid":
        return len(recipe.space.grid())
    return recipe.search.num_trials


class Chooser:
    """Called by one thread of the driver at a time."""

    def __init__(self, memory: StudyMemory, on_note: Callable[[str], None]) -> None:
        self._memory = memory
        self._recipe = memory.recipe
        self._note = on_note
        self._left = [one.number for one in memory.running()]
        self._failures: list[str] = []
        self.num_trials = num_trials(memory.recipe)
        if self._recipe.search.sampler == "grid" and not memory.kept("grid"):
            self._enqueue_grid()

    @property
    def num_left(self) -> int:
        """Trials that an earlier command left running."""
        return len(self._left)

    def _enqueue_grid(self) -> None:
        for params in self._recipe.space.grid():
            self._memory.enqueue(params, "a point of the grid")
        self._memory.keep("grid", True)

    def next(self) -> Next:
        """Raises TrainingError where trial after trial failed."""
        while self._left:
            number = self._left.pop(0)
            if self._is_allowed(number, self._memory.choose_rest(number)):
                return self._task(number)
        if self._recipe.scheduler == "pbt":
            return self._next_of_population()
        while True:
            counts = self._memory.counts()
            if counts.total() - counts["waiting"] >= self.num_trials:
                return "finished"
            if self._recipe.search.sampler == "grid" and counts["waiting"] == 0:
                return "finished"
            number, values = self._memory.ask()
            if self._is_allowed(number, values):
                return self._task(number)

    def _is_allowed(self, number: int, values: Values) -> bool:
        """Values that are not allowed together are a pruned trial."""
        try:
            self._recipe.trial_spec(values)
        except PlatformError as error:
            told = error.line
            self._memory.tell_pruned(number, told)
            self._note(f"trial {number} is not made: {told}")
            if self._recipe.search.sampler != "grid":  # whose other points are given, and may be allowed
                self.failed(number, told)
            return False
        return True

    def take_up_again(self, number: int) -> None:
        """A trial that is still running in the study, and nowhere else."""
        self._left.append(number)

    def succeeded(self) -> None:
        """A trial gave a result, or was ended for others': whatever failed before was not the search's fault."""
        self._failures.clear()

    def failed(self, number: int, reason: str) -> None:
        """Raises TrainingError at the last of too many in a row."""
        self._failures.append(reason)
        allowed = self._recipe.search.max_failed_trials
        if len(self._failures) >= allowed:
            raise TrainingError(
                f"{len(self._failures)} trials in a row failed, the last of them trial {number}",
                why=reason,
                fix="mend that, then give the same command again; search.max_failed_trials says how many may fail",
            )

    def _task(self, number: int) -> TrialTask:
        trial = self._memory.trial(number)
        run_id = trial_run_id(self._memory.name, trial.number)
        self._memory.note(trial.number, {RUN_ID: run_id})
        return TrialTask(trial.number, run_id, trial.values, self._donor_of(trial))

    def _donor_of(self, trial: TrialView) -> Donor | None:
        if GENERATION not in trial.attrs:
            return None
        until = (trial.attrs[GENERATION] + 1) * self._recipe.search.population.interval_steps
        parent = trial.attrs.get(PARENT)
        return Donor(None if parent is None else trial_run_id(self._memory.name, parent), until)

    # A population

    def _next_of_population(self) -> Next:
        """Members of one generation after the other; the next begins when the last of this one has ended."""
        by_generation: dict[int, list[TrialView]] = {}
        for one in self._memory.trials():
            if GENERATION in one.attrs:
                by_generation.setdefault(one.attrs[GENERATION], []).append(one)
        newest = max(by_generation, default=0)
        present = by_generation.get(newest, [])
        # A command that was killed may have enqueued a part of them.
        missing = set(range(self._recipe.search.population.size)) - {one.attrs[MEMBER] for one in present}
        if missing:
            self._enqueue_members(newest, missing, by_generation.get(newest - 1, []))
        elif all(one.state not in ("waiting", "running") for one in present):
            if newest == num_generations(self._recipe) - 1:
                return "finished"
            self._enqueue_members(newest + 1, {one.attrs[MEMBER] for one in present}, present)
        elif not any(one.state == "waiting" for one in present):
            return "wait"
        number, _ = self._memory.ask()
        return self._task(number)

    def _enqueue_members(self, generation: int, wanted: set[int], before: list[TrialView]) -> None:
        recipe = self._recipe
        if generation == 0:
            params, _ = recipe.space.params_of(recipe.spec.to_dict())
            for member in sorted(wanted):
                # The first member has the recipe's own values; the others' are drawn when they begin.
                self._memory.enqueue_as_it_is(params if member == 0 else {}, {MEMBER: member, GENERATION: 0})
            return
        births = next_generation(
            [self._member(one) for one in before],
            recipe.space,
            minimize=recipe.objectives[0].mode == "min",
            replaced_fraction=recipe.search.population.replaced_fraction,
            seed=f"{recipe.search.seed}/{generation}",
        )
        for one in births:
            attrs: dict[str, Any] = {MEMBER: one.member, GENERATION: generation, PARENT: one.parent_number}
            if one.is_replaced:
                attrs[ORIGIN] = f"the weights of trial {one.parent_number}"
            if one.member in wanted:
                self._memory.enqueue_as_it_is(one.params, attrs)

    def _member(self, trial: TrialView) -> Member:
        objective = trial.objectives[0] if trial.objectives else None
        return Member(trial.attrs[MEMBER], trial.number, self._memory.params(trial.number), objective)

"""What each trial takes, by workers of its own: where `scaling` is searched they differ from the recipe's."""

from __future__ import annotations

from raytrain.cluster.section import WorkersSection
from raytrain.runs.cost import Cost, cost_of
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.study import TrialView


class TrialCosts:
    """Costs of one search; a trial's workers are worked out once, however often it is asked for."""

    def __init__(self, recipe: TuneRecipe) -> None:
        self._recipe = recipe
        self._is_searched = any(key.startswith("scaling.") for key in recipe.space.ranges)
        self.probe_s = 0.0
        self._workers: dict[int, WorkersSection] = {}

    def of_probe(self) -> Cost:
        return self._of_recipe(self.probe_s)

    def of_trial(self, trial: TrialView, seconds: float) -> Cost:
        if (
            not self._is_searched or not seconds
        ):  # one that took nothing may have no values, or none that are allowed
            return self._of_recipe(seconds)
        if trial.number not in self._workers:
            self._workers[trial.number] = self._recipe.trial_spec(trial.values).scaling
        return cost_of(seconds, self._workers[trial.number], self._recipe.spec.cost)

    def _of_recipe(self, seconds: float) -> Cost:
        return cost_of(seconds, self._recipe.spec.scaling, self._recipe.spec.cost)

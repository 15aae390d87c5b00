"""Population-based training: members learn side by side, and the worst go on from the best ones' weights.

Jaderberg et al. 2017, "Population Based Training of Neural Networks". A member's way between two comparisons is a trial
of its own, with its own run and record, that begins with a checkpoint: its own member's, or that of a better one with
values that are a little changed. So a population that is killed goes on like any other search. Ray's own scheduler
keeps its population in the memory of the driver.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raytrain.errors import ConfigError
from raytrain.tuning.section import ChoiceRange
from raytrain.tuning.space import Params, Space
from raytrain.tuning.spec import TuneRecipe

CHANGEABLE = (
    "train.learning_rate",
    "train.weight_decay",
    "train.max_grad_norm",
    "train.loss.label_smoothing",
)
"""Keys that may change while the same weights are trained on."""
_FACTORS = (0.8, 1.25)


@dataclass(frozen=True)
class Member:
    """How one member stands at a comparison; `objective` is None where its trial failed."""

    member: int
    number: int
    params: Params
    objective: float | None


@dataclass(frozen=True)
class Birth:
    """How a member goes on: from whose trial, with what."""

    member: int
    parent_number: int
    params: Params
    is_replaced: bool


def check_population(recipe: TuneRecipe) -> None:
    """ConfigError for a recipe whose members could not go on from each other's weights."""
    place = recipe.document.origin(("search", "scheduler"))
    train, population = recipe.spec.train, recipe.search.population

    def refused(why: str, fix: str) -> ConfigError:
        return ConfigError(f"{place}: search.scheduler pbt cannot be used here", why=why, fix=fix)

    fixed = [key for key in recipe.space.ranges if key not in CHANGEABLE]
    if fixed:
        raise refused(
            f"{', '.join(fixed)} cannot change while the same weights are trained on",
            f"search {', '.join(CHANGEABLE)} alone, or use scheduler asha",
        )
    if train.schedule != "constant":
        raise refused(
            f"the population changes the learning rate, and train.schedule {train.schedule} would too",
            "set train.schedule=constant",
        )
    if train.max_steps is None or train.max_steps % population.interval_steps:
        raise refused(
            f"train.max_steps is {train.max_steps}, which is no multiple of interval_steps "
            f"{population.interval_steps}",
            "set train.max_steps to a multiple of search.population.interval_steps",
        )
    if not train.saves:
        raise refused("members go on from checkpoints, and none are saved", "set train.save_every")


def num_generations(recipe: TuneRecipe) -> int:
    """Comparisons and the last stretch."""
    assert recipe.spec.train.max_steps is not None, "checked with the recipe"
    return recipe.spec.train.max_steps // recipe.search.population.interval_steps


def next_generation(
    members: Sequence[Member], space: Space, *, minimize: bool, replaced_fraction: float, seed: str
) -> list[Birth]:
    """How each member goes on. The worst, and those whose trial failed, take the weights of one of the best, and its
    values a little changed; the same arguments give the same answer.

    Raises ConfigError where no member has an objective.
    """
    generator = random.Random(seed)
    sign = 1.0 if minimize else -1.0
    standing = [one for one in members if one.objective is not None and math.isfinite(one.objective)]
    if not standing:
        raise ConfigError(
            "no member of the population has a result to go on from",
            why=f"all {len(members)} failed",
            fix="see why with `raytrain runs show`, and narrow search.space",
        )
    ranked = sorted(standing, key=lambda one: (sign * (one.objective or 0.0), one.member))
    count = min(max(1, int(len(members) * replaced_fraction)), len(ranked) // 2)
    best = ranked[: max(1, count)]
    worst = {one.member for one in ranked[len(ranked) - count :]} if count else set()
    worst |= {one.member for one in members if one not in standing}
    births = []
    for one in sorted(members, key=lambda member: member.member):
        if one.member not in worst:
            births.append(Birth(one.member, one.number, one.params, False))
            continue
        parent = generator.choice(best)
        births.append(Birth(one.member, parent.number, explored(parent.params, space, generator), True))
    return births


def explored(params: Mapping[str, Any], space: Space, generator: random.Random) -> Params:
    """Numbers a fifth smaller or a quarter larger, within their range; a choice is drawn again one time in four."""
    changed: Params = {}
    for key, value in params.items():
        one = space.ranges[key]
        if isinstance(one, ChoiceRange):
            is_drawn = generator.random() < 0.25
            changed[key] = generator.choice(space.points(key)) if is_drawn else value
            continue
        moved = min(max(value * generator.choice(_FACTORS), one.low), one.high)
        if one.step is not None:
            last = math.floor((one.high - one.low) / one.step + 1e-9)
            changed[key] = one.low + min(round((moved - one.low) / one.step), last) * one.step
        else:
            changed[key] = moved
    return changed

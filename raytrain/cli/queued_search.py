"""A search in the queue: how many trials it makes at once is settled beforehand, so that what it takes is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytrain.tuning.spec import TuneRecipe


def search_of(what: str, given: Mapping[str, Any]) -> TuneRecipe | None:
    """The search that a command makes of its recipe; None where it makes none. ConfigError for a fault in it."""
    from raytrain.cli.config import has_section
    from raytrain.tuning.spec import load_tune_recipe

    recipe, overrides = given["recipe"], given["overrides"]
    if what == "tune" or (what == "run" and has_section(recipe, overrides, "search")):
        return load_tune_recipe(recipe, overrides)
    return None


def trials_at_once(search: TuneRecipe) -> int:
    """At most. A recipe that leaves it open counts as one trial at a time, as `with_trials_bounded` has it run."""
    from raytrain.tuning.chooser import num_trials

    if any(key.startswith("scaling.") for key in search.search.space):
        return 1  # as the search itself has it: trials of different sizes could wait for each other
    members = search.search.population.size if search.scheduler == "pbt" else num_trials(search)
    return min(search.search.max_concurrent or 1, members)


def with_trials_bounded(words: Sequence[str], cpus: float | None, gpus: float | None) -> list[str]:
    """The words, with a `search.max_concurrent` where the recipe leaves it open: as many trials as the CPUs and GPUs
    that were asked for have room for, else one. Left open it would take the whole machine or cluster.
    """
    from raytrain.cli.queued_jobs import recipe_arguments

    given = recipe_arguments(words)
    search = None if given is None else search_of(words[0], given)
    if search is None or search.search.max_concurrent is not None:
        return list(words)
    scaling = search.spec.scaling
    room = [
        int(wanted / (amount * scaling.max_workers))
        for name, wanted in (("CPU", cpus), ("GPU", gpus))
        if wanted is not None and (amount := scaling.worker_resources.get(name, 0.0))
    ]
    return [*words, f"search.max_concurrent={max(1, min(room, default=1))}"]

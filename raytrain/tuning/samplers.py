"""What chooses the values of the next trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from raytrain.tuning.section import SamplerName, SearchSection

if TYPE_CHECKING:
    import optuna

FROM_WHOLE_TRIALS: frozenset[SamplerName] = frozenset({"gp", "nsga2"})
"""Samplers that learn nothing from a trial that was ended early (Optuna 5)."""

_LEAST_STARTUP, _MOST_STARTUP = 5, 10
_MORE_WHERE_MOST_END_EARLY = 2.5
_WHOLE_WHERE_MOST_END_EARLY = 2


def num_startup_trials(search: SearchSection, *, ends_early: bool) -> int:
    """Trials at random before the sampler has something to learn from: whole ones of FROM_WHOLE_TRIALS, else any.

    Where most are ended early it takes more of them until a few are whole: with 10 TPE kept to what led by chance, and
    of 6 searches of benchmarks/tuning.py 3 found what random search does; with 25 all 6. Whole ones are then so rare
    that a sampler which counts them alone begins after two. CMA-ES learns from its own generations alone: what is
    drawn at random tells it nothing but which keys there are.
    """
    if search.sampler == "cmaes":
        return 1
    startup = max(_LEAST_STARTUP, min(_MOST_STARTUP, search.num_trials // 5))
    if not ends_early:
        return startup
    if search.sampler in FROM_WHOLE_TRIALS:
        return _WHOLE_WHERE_MOST_END_EARLY
    return int(_MORE_WHERE_MOST_END_EARLY * startup)


def build_sampler(search: SearchSection, num_known: int, *, ends_early: bool) -> optuna.samplers.BaseSampler:
    """The sampler of a search that knows `num_known` trials already.

    Its generator begins elsewhere at each start, or a command that goes on would draw the first one's values again.
    """
    import optuna

    seed = (search.seed + 7919 * num_known) % 2**31
    startup = num_startup_trials(search, ends_early=ends_early)
    builders: dict[SamplerName, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, group=True),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(
            seed=seed, n_startup_trials=startup, consider_pruned_trials=True
        ),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, startup)),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        # Every point of a grid is enqueued; nothing is left to choose.
        "grid": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return builders[search.sampler]()

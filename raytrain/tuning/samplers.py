"""What chooses the values of the next trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from raytrain.tuning.section import SamplerName, SearchSection

if TYPE_CHECKING:
    import optuna

_LEAST_STARTUP, _MOST_STARTUP = 5, 10
_MORE_WHERE_MOST_END_EARLY = 2.5


def num_startup_trials(num_trials: int, ends_early: bool) -> int:
    """Trials at random before a sampler has something to learn from.

    Where most are ended early it takes more of them until a few are whole: with 10 the sampler kept to what led by
    chance, and of 6 searches of benchmarks/tuning.py 3 found what random search does; with 25 all 6.
    """
    startup = max(_LEAST_STARTUP, min(_MOST_STARTUP, num_trials // 5))
    return int(_MORE_WHERE_MOST_END_EARLY * startup) if ends_early else startup


def build_sampler(search: SearchSection, num_known: int, *, ends_early: bool) -> optuna.samplers.BaseSampler:
    """The sampler of a search that knows `num_known` trials already.

    Its generator begins elsewhere at each start, or a command that goes on would draw the first one's values again.
    """
    import optuna

    seed = (search.seed + 7919 * num_known) % 2**31
    startup = num_startup_trials(search.num_trials, ends_early)
    builders: dict[SamplerName, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, group=True),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, startup)),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        # Every point of a grid is enqueued; nothing is left to choose.
        "grid": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return builders[search.sampler]()

"""What ends a trial before its last step, from what all trials have reported so far.

The rules are Optuna's pruners rather than Ray Tune's schedulers: they keep what they know in the study's storage, so
that a search that was killed goes on with it. Ray's keep it in the memory of the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytrain.errors import ConfigError

if TYPE_CHECKING:
    import optuna

    from raytrain.tuning.spec import TuneRecipe


def build_pruner(recipe: TuneRecipe) -> optuna.pruners.BasePruner:
    """The rule that the recipe names; it is asked after each evaluation, with the optimizer steps done."""
    import optuna

    search, scheduler = recipe.search, recipe.scheduler
    least = first_comparison(recipe)
    if scheduler == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=least, reduction_factor=search.reduction_factor
        )
    if scheduler == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=least, max_resource=_last_step(recipe), reduction_factor=search.reduction_factor
        )
    if scheduler == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=least - 1)
    return optuna.pruners.NopPruner()


def _last_step(recipe: TuneRecipe) -> int | str:
    """Which its brackets are made for; `auto`, where the recipe does not fix it, waits for the first whole trial."""
    max_steps = recipe.spec.train.max_steps
    if max_steps is None or "train.max_steps" in recipe.search.space:
        return "auto"
    return max(max_steps, first_comparison(recipe))


def first_comparison(recipe: TuneRecipe) -> int:
    """Steps that every trial may make before it is compared.

    Not before a ninth of them: what leads after less says little of the end (benchmarks/tuning.py: 3 of 81 steps ended
    the trials that would have been best, 9 did not).
    """
    if recipe.search.min_steps is not None:
        return recipe.search.min_steps
    train = recipe.spec.train
    last = None if "train.max_steps" in recipe.search.space else train.max_steps
    return max(train.eval_every or train.log_every, 0 if last is None else -(-last // 9))


def check_comparable(recipe: TuneRecipe) -> str | None:
    """What to tell of a scheduler that never sees two values of one trial; None where it does.

    Raises ConfigError where it was asked for by name.
    """
    if recipe.scheduler in ("none", "pbt") or not recipe.metrics[0].startswith("eval/"):
        return None
    if recipe.spec.train.eval_every:
        return None
    if recipe.search.scheduler == "auto":
        return "train.eval_every is 0: trials are compared at their end alone, and none is ended early"
    raise ConfigError(
        f"search.scheduler {recipe.scheduler} has nothing to compare",
        why=f"{recipe.metrics[0]} is measured at the end of a trial alone: train.eval_every is 0",
        fix="set train.eval_every to a number of steps, or search.scheduler=none",
    )

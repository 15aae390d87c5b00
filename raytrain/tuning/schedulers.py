"""What ends a trial before its last step, from what all trials have reported so far.

The rules are Optuna's pruners rather than Ray Tune's schedulers: they keep what they know in the study's storage, so
that a search that was killed goes on with it. Ray's keep it in the memory of the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytrain.errors import ConfigError
from raytrain.tuning.samplers import FROM_WHOLE_TRIALS

if TYPE_CHECKING:
    import optuna

    from raytrain.tuning.spec import TuneRecipe


ENDING_EARLY = frozenset({"asha", "hyperband", "median"})


def chosen_scheduler(recipe: TuneRecipe) -> str:
    """What `auto` stands for, where the recipe names no other."""
    if recipe.search.scheduler != "auto":
        return recipe.search.scheduler
    return "asha" if _why_none_ends_early(recipe) is None else "none"


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


def check_comparable(recipe: TuneRecipe) -> None:
    """Raises ConfigError for a scheduler that was asked for by name, and never sees two values of one trial."""
    told = _told_at_the_end_alone(recipe)
    if recipe.search.scheduler in ENDING_EARLY and told is not None:
        why, fix = told
        raise ConfigError(
            f"search.scheduler {recipe.scheduler} has nothing to compare",
            why=why,
            fix=f"{fix}search.scheduler=none",
        )


def told_of_scheduler(recipe: TuneRecipe) -> str | None:
    """What a person would not expect of the trials' ends; None where there is no such thing."""
    sampler, scheduler = recipe.search.sampler, recipe.scheduler
    if recipe.search.scheduler == "auto" and len(recipe.objectives) == 1:
        why = _why_none_ends_early(recipe)
        return None if why is None else f"{why}: no trial is ended early"
    if sampler in FROM_WHOLE_TRIALS and scheduler in ENDING_EARLY:
        return f"sampler {sampler} learns from whole trials alone: from those that {scheduler} ends early, nothing"
    return None


def _why_none_ends_early(recipe: TuneRecipe) -> str | None:
    """Why `auto` is none; None where it is asha."""
    if len(recipe.objectives) > 1:
        return "there are several objectives"
    told = _told_at_the_end_alone(recipe)
    if told is not None:
        return told[0]
    sampler = recipe.search.sampler
    return f"sampler {sampler} learns from whole trials alone" if sampler in FROM_WHOLE_TRIALS else None


def _told_at_the_end_alone(recipe: TuneRecipe) -> tuple[str, str] | None:
    """Why the first objective is not known while a trial runs, and what to set for it; None where it is known."""
    metric = recipe.metrics[0]
    if metric.startswith(("result/", "run/")):
        return f"{metric} is known at the end of a trial alone", "name another objective, or set "
    is_evaluated = recipe.spec.train.eval_every or "train.eval_every" in recipe.search.space
    if metric.startswith("eval/") and not is_evaluated:
        return (
            f"{metric} is measured at the end of a trial alone: train.eval_every is 0",
            "set train.eval_every to a number of steps, or ",
        )
    return None

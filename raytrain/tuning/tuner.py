"""Ray Tune, set up for trials that are whole training runs with workers of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from raytrain.cluster.connection import alive_nodes, autoscales, check_capacity
from raytrain.errors import ClusterError, PlatformError
from raytrain.tuning.placement import Placement, choose_placement
from raytrain.tuning.spec import TuneRecipe
from raytrain.tuning.trial import TrialContext, run_trial


def place_trials(recipe: TuneRecipe, num_trials: int) -> Placement:
    """How many trials the joined cluster has room for at once. Raises ClusterError where it is not even one.

    An autoscaling cluster grows when a trial asks for it: there is room for as many as the recipe names.
    """
    search, scaling = recipe.search, recipe.spec.scaling
    check_capacity(scaling)
    is_searched = any(key.startswith("scaling.") for key in search.space)
    placement = choose_placement(
        alive_nodes(),
        scaling,
        max_concurrent=search.max_concurrent,
        num_trials=num_trials,
        scaling_is_searched=is_searched,
    )
    wanted = 1 if is_searched else min(search.max_concurrent or 1, num_trials)
    if placement.at_once < wanted and autoscales():
        return Placement(wanted, "the cluster grows for it")
    return placement


def build_tuner(context: TrialContext, searcher: Any, folder: Path, trainable: Any = run_trial) -> Any:
    """Ray Tune over whole training runs; each trial's driver is on this node, beside the records, and takes no CPU."""
    import ray
    import ray.tune

    from raytrain.tuning.deaths import DeathNotes

    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the runs have records of their own
    os.environ.setdefault(
        "RAY_AIR_NEW_OUTPUT", "0"
    )  # which prints tables at any verbosity, 0 included (2.60)
    here = next(name for name in _node_resources() if name.startswith("node:"))
    placed = ray.tune.PlacementGroupFactory([{here: 0.001}])
    function = ray.tune.with_resources(ray.tune.with_parameters(trainable, context=context), placed)
    return ray.tune.Tuner(
        function,
        tune_config=ray.tune.TuneConfig(
            search_alg=searcher,
            scheduler=DeathNotes(searcher.deaths),
            num_samples=-1,
            reuse_actors=True,  # the imports of torch and Ray, seconds of each trial
            trial_name_creator=lambda trial: f"trial-{trial.config['task'].number:04d}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['task'].number:04d}",
        ),
        run_config=ray.tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            verbose=0,
            failure_config=ray.tune.FailureConfig(max_failures=context.recipe.spec.scaling.max_failures),
        ),
    )


def _node_resources() -> list[str]:
    """Of the node of this process, its own name first."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    found = next(node for node in ray.nodes() if node["NodeID"] == here)
    names = [name for name in found["Resources"] if name.startswith("node:") and "internal" not in name]
    return sorted(names)


def dashboard() -> str | None:
    """Where Ray shows its own view of the cluster; None where it was started without."""
    from ray._private.worker import (
        get_dashboard_url,
    )  # Ray tells it otherwise to the caller of init alone (2.60)

    url = get_dashboard_url()
    return f"Ray's dashboard: http://{url}" if url else None


def explain_failure(error: BaseException, run_id: str) -> PlatformError:
    """What Ray Tune raised, in the words of the person who has to deal with it."""
    if isinstance(error, PlatformError):
        return error
    lines = str(error).strip().splitlines()
    return ClusterError(
        f"search {run_id}: Ray Tune could not go on",
        why=lines[-1] if lines else type(error).__name__,
        fix="see `ray status`; the same command goes on with the trials that are known",
    )

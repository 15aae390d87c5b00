"""Both ways between raytrain and EleutherAI's lm-evaluation-harness: a model of ours under its tasks, a task of its as
our suite, a suite of ours as its task. Needs the extra raytrain[eval], which is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError
from raytrain.evaluation.items import Suite
from raytrain.models.inference import LoadedModel


def harness_model(loaded: LoadedModel, *, batch_size: int = 32) -> Any:
    """A `lm_eval.api.model.LM` for `lm_eval.simple_evaluate(model=…)`, which answers as `answer_items` does.

    `batch_size` is of what is generated; likelihoods are packed by their tokens.
    """
    return _part("model").RaytrainLM(loaded, batch_size)


def harness_task(suite: Suite) -> Any:
    """A suite as a task for `lm_eval.simple_evaluate(tasks=[…])`: the same prompts, choices, stop texts and scorer.

    Raises ConfigError where the harness has no such task.
    """
    return _part("tasks").SuiteTask(suite)


def write_suite(
    task: str | Path | Mapping[str, Any] | Any,
    folder: Path,
    *,
    num_fewshot: int | None = None,
    fewshot_seed: int = 1234,
    max_items: int | None = None,
    filter_name: str | None = None,
    replace: bool = False,
) -> Path:
    """A task of the harness as a suite in `folder`: `suite.yaml`, and its items as the harness asks them.

    task: its YAML file, its config, or the loaded task; its data has to be local. Worked examples are drawn as
    `lm_eval.simple_evaluate` draws them with the same `num_fewshot` and seed. `filter_name` says which of several
    filters counts; by default the first. Returns the path of suite.yaml. Raises ConfigError where the task asks for
    what a suite cannot say, or where other files of these names are in `folder` and `replace` is not set.
    """
    made: Path = _part("suites").write_suite(
        task,
        folder,
        num_fewshot=num_fewshot,
        fewshot_seed=fewshot_seed,
        max_items=max_items,
        filter_name=filter_name,
        replace=replace,
    )
    return made


def _part(name: str) -> Any:
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "raytrain":
            raise
        raise ConfigError(
            "lm-evaluation-harness cannot be used",
            why=str(error),
            fix="pip install 'raytrain[eval]'",
        ) from error

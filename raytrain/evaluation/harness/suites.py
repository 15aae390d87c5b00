"""A task of lm-evaluation-harness as a suite of ours. Imported where the extra raytrain[eval] is installed."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_metric
from lm_eval.api.task import Task
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks import TaskManager

from raytrain.errors import ConfigError
from raytrain.evaluation.harness.model import read_settings
from raytrain.evaluation.scoring.registry import Score
from raytrain.evaluation.suite import load_suite
from raytrain.storage.location import sync_folder, translated_errors, write_atomically

_KINDS = {
    "multiple_choice": "multiple_choice",
    "generate_until": "generation",
    "loglikelihood_rolling": "perplexity",
}
_ITEMS_FILE, _SUITE_FILE = "items.jsonl", "suite.yaml"
_NOT_OPTIONS = ("metric", "aggregation", "higher_is_better", "hf_evaluate")


def write_suite(
    task: Any,
    folder: Path,
    *,
    num_fewshot: int | None,
    fewshot_seed: int,
    max_items: int | None,
    filter_name: str | None,
    replace: bool,
) -> Path:
    """See harness.py."""
    loaded = _loaded(task)
    _refuse_what_a_suite_cannot_say(loaded)
    if num_fewshot is not None and loaded.get_config("num_fewshot") != 0:
        loaded.set_config("num_fewshot", num_fewshot)
    loaded.set_fewshot_seed(fewshot_seed)
    loaded.build_all_requests(limit=max_items)
    asked: dict[int, list[Any]] = {}
    for instance in loaded.instances:
        asked.setdefault(instance.doc_id, []).append(instance)
    rows = [_row(loaded, number, instances) for number, instances in asked.items()]
    recipe = _recipe(loaded, _ITEMS_FILE, filter_name)
    texts = {
        _ITEMS_FILE: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        _SUITE_FILE: yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
    }
    with translated_errors(folder, "write"):
        _publish(folder, {name: text.encode() for name, text in texts.items()}, replace=replace)
    return folder / _SUITE_FILE


def _publish(folder: Path, files: Mapping[str, bytes], *, replace: bool) -> None:
    """All of the files or, where they cannot be written, those that were there. Raises ConfigError for others."""
    others = [
        name
        for name, content in files.items()
        if (folder / name).exists() and (folder / name).read_bytes() != content
    ]
    if others and not replace:
        raise ConfigError(
            f"{folder} holds something else already",
            why=f"this import would change {' and '.join(others)}, and nothing is overwritten unasked",
            fix="name another folder, or write over it: --replace on the command line, replace=True in Python",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=folder) as staging:
        for name, content in files.items():
            write_atomically(Path(staging) / name, content)
        load_suite(Path(staging) / _SUITE_FILE)
        (folder / _SUITE_FILE).unlink(missing_ok=True)  # no suite rather than one with another's rows
        for name in files:
            (Path(staging) / name).replace(folder / name)
        sync_folder(folder)


def _loaded(task: Any) -> Any:
    if isinstance(task, Task):
        return task
    spec = dict(task) if isinstance(task, Mapping) else str(task)
    try:
        tasks = TaskManager(include_defaults=False).load([spec])["tasks"]
    except (KeyError, ValueError, TypeError, FileNotFoundError) as error:
        raise ConfigError(
            f"{task} cannot be loaded as a task of lm-evaluation-harness",
            why=str(error).strip("'\""),
            fix="name its YAML file; the data that it reads has to be local",
        ) from error
    if len(tasks) != 1:
        raise ConfigError(
            f"{task} is {len(tasks)} tasks", why="a suite is one", fix="name one of them: " + ", ".join(tasks)
        )
    return next(iter(tasks.values()))


def _refuse_what_a_suite_cannot_say(task: Any) -> None:
    config = task.config
    reasons = {
        f"it asks for {config.output_type}": config.output_type not in _KINDS,
        "it scores with code of its own": config.process_results is not None,
        "its choices are contexts, not continuations": bool(task.multiple_input),
        "several answers are right": bool(task.multiple_target),
        "it shows images or sounds": bool(config.doc_to_image or config.doc_to_audio),
        "it asks each item several times": config.repeats != 1,
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise ConfigError(
                f"{config.task} cannot be written as a suite",
                why=reason,
                fix="run it in lm-evaluation-harness with raytrain.evaluation.harness.harness_model",
            )


def _row(task: Any, number: int, instances: list[Any]) -> dict[str, Any]:
    """One item as the harness asks it, from the very requests that it would send."""
    first, document = instances[0], instances[0].doc
    kind = _KINDS[task.OUTPUT_TYPE]
    if kind == "perplexity":
        return {"id": str(number), "text": first.args[0]}
    if kind == "generation":
        answer = task.doc_to_target(document)
        if task.config.doc_to_choice is not None:
            answer = task.doc_to_choice(document)[answer]
        return {"id": str(number), "prompt": first.args[0], "answer": str(answer)}
    choices = task.doc_to_choice(document)
    right = task.doc_to_target(document)
    right = choices.index(right) if isinstance(right, str) and right in choices else right
    delimiter = task.config.target_delimiter
    prompt = first.args[0]
    # Spaces between prompt and choice are judged with the choice wherever they stand; left out of its text they leave
    # its length what the harness divides by.
    if delimiter.strip():
        choices = [delimiter + choice for choice in choices]
    else:
        prompt += delimiter
    return {"id": str(number), "prompt": prompt, "choices": choices, "right": right}


def _recipe(task: Any, source: str, filter_name: str | None) -> dict[str, Any]:
    config, kind = task.config, _KINDS[task.OUTPUT_TYPE]
    version = (config.metadata or {}).get("version", 0) if isinstance(config.metadata, dict) else 0
    recipe: dict[str, Any] = {
        "suite": re.sub(r"[^a-z0-9_.-]", "_", str(config.task).lower()),
        "version": str(version),
        "description": f"{config.task} of lm-evaluation-harness",
        "kind": kind,
        "items": {"source": {"path": source}, "id": "id"},
        "prompt": {"mode": "completion", "template": "" if kind == "perplexity" else "{prompt}"},
        "answer": {"perplexity": "{text}", "generation": "{answer}", "multiple_choice": "{right}"}[kind],
    }
    if kind == "multiple_choice":
        recipe["choices"] = "choices"
    if kind == "generation":
        stops, most = read_settings(config.generation_kwargs or {})
        recipe["generation"] = {"max_new_tokens": most, "stop": list(stops)}
        recipe["scorer"] = {"name": f"{__name__}:score", "options": _scoring(task, filter_name)}
    return recipe


def _scoring(task: Any, filter_name: str | None) -> dict[str, Any]:
    """The task's first measure, and the functions that an answer goes through before it."""
    measures = task.config.metric_list or []
    if not measures or callable(measures[0]["metric"]):
        raise ConfigError(
            f"{task.config.task} cannot be written as a suite",
            why="it has no measure by name",
            fix="name one in its metric_list, such as exact_match",
        )
    filters = task.config.filter_list or []
    names = [one["name"] for one in filters]
    if filter_name is not None and filter_name not in names:
        raise ConfigError(
            f"{task.config.task} has no filter {filter_name!r}",
            why=f"it has {', '.join(names) or 'none'}",
            fix="name one of them",
        )
    chosen: list[dict[str, Any]] = next(
        (one["filter"] for one in filters if filter_name in (None, one["name"])), []
    )
    options = {key: value for key, value in measures[0].items() if key not in _NOT_OPTIONS}
    return {"metric": measures[0]["metric"], "options": options, "filters": chosen}


def score(
    output: str,
    references: Sequence[str],
    *,
    metric: str,
    options: Mapping[str, Any] | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
) -> Score:
    """A scorer: the harness's own measure of what its own filters leave of the output."""
    steps = [[one["function"], {key: one[key] for key in one if key != "function"}] for one in filters]
    instance = Instance("generate_until", doc={}, arguments=(), idx=0, resps=[output])
    build_filter_ensemble("one", steps or [["take_first", None]]).apply([instance])
    left = instance.filtered_resps["one"]
    left = left[0] if isinstance(left, list) else left
    values = []
    for reference in references:
        found = get_metric(metric)(references=[reference], predictions=[left], **(options or {}))
        values.append(float(found[metric] if isinstance(found, dict) else found))
    return Score(max(values), note=str(left))

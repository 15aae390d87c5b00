"""A trained artifact, or a base model, loaded to answer."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.data.tasks import TaskName
from raytrain.errors import ConfigError, IntegrityError
from raytrain.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_tensors, trained_state
from raytrain.models.base import ResolvedModel, load_base_model, load_tokenizer, resolve_base_model
from raytrain.models.base_places import place_of_base
from raytrain.models.heads import ClassHead, saved_labels
from raytrain.models.model_files import first_line, verified_manifest
from raytrain.models.quiet import quiet_loading
from raytrain.models.section import ModelSection
from raytrain.models.tasks import MODEL_TASKS
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, digest_of, file_sha256, read_manifest
from raytrain.storage.named_places import place_of_artifact

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WRITING: tuple[TaskName, ...] = ("causal_lm",)
RELEASED: tuple[TaskName, ...] = (*WRITING, "sequence_classification")
"""Tasks whose models are exported and served."""

TRAINING_RECORD = "training.json"
"""Stands in every trained artifact: `base_model` (the reference), `base_digest`, and training's notes."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base: ResolvedModel
    adapted: bool
    task: TaskName = "causal_lm"


@dataclass(frozen=True)
class InferenceModel:
    """A model on this machine, found and identified, its weights not read yet."""

    reference: str
    """What the user wrote."""
    base: ResolvedModel
    section: ModelSection
    """How the base model is held, what for, and the chat template where another than the model's own is wanted."""
    tokenizer_source: ResolvedModel
    adapter: Path | None = None
    """Its folder; None where the base model answers by itself."""
    adapter_digest: str | None = None
    labels: tuple[str, ...] = ()
    """A classifier's classes, in the order of their numbers."""

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.tokenizer_source, self.section)

    def load(self, device: str | torch.device = "cpu") -> LoadedModel:
        """Raises IntegrityError where a file is damaged, or the adapter does not fit."""
        tokenizer = self.load_tokenizer()
        head = ClassHead(self.labels) if self.labels else None
        model = load_base_model(self.base, self.section, device=device, head=head)
        if head is not None:
            model.config.pad_token_id = tokenizer.pad_token_id  # as training set it
        if self.adapter is not None:
            model = _with_adapter(model, self.adapter)
        is_adapted = self.adapter is not None
        return LoadedModel(model.eval(), tokenizer, self.base, is_adapted, self.section.task)


def find_for_inference(
    reference: str,
    *,
    cache: Location,
    dtype: str = "float32",
    base_model_only: bool = False,
    chat_template: str | None = None,
    tasks: Collection[TaskName] = WRITING,
) -> InferenceModel:
    """Find an artifact (adapter or model), an adapter's folder, or anything that `model.base_model` takes.

    With `base_model_only` an adapter's base model answers without it, with the adapter's chat template.
    Raises IntegrityError where the adapter was trained over another base model, or a file is damaged; ConfigError where
    it was trained for none of `tasks`.
    """
    folder = _folder_of(reference)
    task, labels = ("causal_lm", ()) if folder is None else _task_of(folder, tasks)
    held = {"dtype": dtype, "chat_template": chat_template, "task": task}
    if folder is None or not (folder / ADAPTER_CONFIG).is_file():
        section = ModelSection.model_validate({"base_model": str(folder or reference), **held})
        base = resolve_base_model(section, cache)
        return InferenceModel(reference, base, section, base, labels=labels)
    record = _training_record(folder)
    section = ModelSection.model_validate(
        {
            "base_model": place_of_base(record["base_model"], record.get("base_digest")),
            "revision": record.get("revision"),
            **held,
        }
    )
    base = replace(resolve_base_model(section, cache), reference=record["base_model"])
    if record.get("base_digest") not in (None, base.digest):
        raise IntegrityError(
            f"{reference} was trained over another base model",
            why=f"trained over {record['base_digest']}, `{base.reference}` is now {base.digest}",
            fix="put the base model back that it was trained over",
        )
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    described = ResolvedModel(reference, str(folder), base.digest) if has_tokenizer else base
    if base_model_only:
        return InferenceModel(reference, base, section, described)
    return InferenceModel(reference, base, section, described, folder, _adapter_digest(folder), labels)


def load_for_inference(
    reference: str,
    *,
    cache: Location,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    base_model_only: bool = False,
    tasks: Collection[TaskName] = WRITING,
) -> LoadedModel:
    """`find_for_inference`, and load it."""
    found = find_for_inference(
        reference, cache=cache, dtype=dtype, base_model_only=base_model_only, tasks=tasks
    )
    return found.load(device)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """`sha256:` over what turns text into tokens; the chat template stands for itself."""
    inside: Any = tokenizer
    rules = inside.backend_tokenizer.to_str() if inside.is_fast else sorted(inside.get_vocab().items())
    return digest_of([rules, {key: str(value) for key, value in inside.special_tokens_map.items()}])


def _adapter_digest(folder: Path) -> str:
    """An artifact's own, or over the files that another tool wrote."""
    if (folder / MANIFEST_NAME).is_file():
        return read_manifest(Location(str(folder))).digest
    files = [folder / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    return digest_of({file.name: file_sha256(file) for file in files if file.is_file()})


def _folder_of(reference: str) -> Path | None:
    if "://" in reference and not reference.startswith(("package://", "file://")):
        return open_artifact(place_of_artifact(reference)).path
    if reference.startswith("package://"):
        return None
    path = Location.parse(reference).path
    if not path.is_dir():
        return None
    if (path / MANIFEST_NAME).is_file():
        verified_manifest(path)
    return path


def _task_of(folder: Path, tasks: Collection[TaskName]) -> tuple[TaskName, tuple[str, ...]]:
    """What raytrain trained the model for, and a classifier's classes. ConfigError where it is none of `tasks`."""
    record = folder / TRAINING_RECORD
    if not record.is_file():
        return "causal_lm", ()
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        task = content["model"].get("task", "causal_lm")
        labels = tuple(str(one) for one in content.get("labels") or ())
    except (ValueError, KeyError, AttributeError, TypeError):
        return "causal_lm", ()  # whoever needs the record reads it again, and says what is wrong with it
    if task not in tasks:
        found = MODEL_TASKS[task].auto_class if task in MODEL_TASKS else "transformers"
        raise ConfigError(
            f"{folder} does not answer in text",
            why=f"it was trained for model.task: {task}",
            fix=f"load it with {found}; docs/tasks.md shows how",
        )
    if task == "sequence_classification" and not (labels or saved_labels(folder)):
        raise IntegrityError(
            f"{record} cannot be read",
            why="a classifier's classes are not in it",
            fix="take another copy of it",
        )
    return task, () if task == "causal_lm" else labels or saved_labels(folder)


def _training_record(folder: Path) -> dict[str, Any]:
    """What training noted about the base model; for an adapter of another tool, what its own config says."""
    noted = folder / TRAINING_RECORD
    file = noted if noted.is_file() else folder / ADAPTER_CONFIG
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        reference = content["base_model" if file == noted else "base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{file} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="take another copy of the adapter",
        ) from error
    if not isinstance(reference, str) or not reference:
        raise ConfigError(
            f"{folder} does not name its base model",
            why=f"{file.name} leaves it out",
            fix="set base_model_name_or_path in adapter_config.json",
        )
    return {**content, "base_model": reference}


def _with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    from peft import PeftModel

    saved = read_tensors(folder, ADAPTER_WEIGHTS)
    try:
        with quiet_loading():
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"the adapter in {folder} does not fit its base model",
            why=first_line(error),
            fix="load it with the base model that it was trained over",
        ) from error
    # PEFT only warns of what the file lacks, and leaves it at its first values.
    missing = sorted(trained_state(adapted).keys() - saved.keys())
    if missing:
        raise IntegrityError(
            f"the adapter in {folder} is not whole",
            why=f"{missing[0]} is missing in the file ({len(missing)} tensors in all)",
            fix="take another copy of it",
        )
    result: PreTrainedModel = adapted
    return result

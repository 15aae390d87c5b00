"""The run config: all sections of a recipe joined, checked as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator

from raytrain.config.document import RECIPE, Document
from raytrain.config.recipe import build, load_recipe
from raytrain.config.section import Section
from raytrain.data.section import DataSection
from raytrain.data.tasks import CLASSIFICATION_TASKS, TaskName
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.runs.cost_section import CostSection
from raytrain.runs.section import TrackingSection
from raytrain.storage.manifest import digest_of
from raytrain.storage.section import StorageSection
from raytrain.training.section import ScalingSection, TrainSection
from raytrain.training.strategies.deepspeed_config import check_deepspeed
from raytrain.training.support import check_support

# Keys that change what is computed. The rest (where, how wide, how often it is written down) may change between two
# runs of one command, and the second still resumes the first.
_TRAIN_KEYS_BESIDE_IDENTITY = {
    "log_every", "save_every", "save_every_minutes", "keep_last_n", "keep_best_k", "max_bad_steps",
}  # fmt: skip


def refuse_task_mismatch(task: TaskName, train: TrainSection) -> None:
    """ValueError for keys of `train:` that the task has no use for; a loss of the user's own may use any of its own."""
    loss, is_classification = train.loss, task in CLASSIFICATION_TASKS
    if train.monitor == "eval/accuracy" and not is_classification:
        raise ValueError(f"train.monitor eval/accuracy needs a classification; model.task is {task}")
    if train.monitor == "eval/perplexity" and is_classification:
        raise ValueError(f"train.monitor eval/perplexity needs a language model; model.task is {task}")
    if train.packing == "on" and task != "causal_lm":
        raise ValueError(f"train.packing on is for model.task causal_lm; here it is {task}")
    if loss.name is not None and ":" in loss.name:
        return
    if loss.class_weights is not None and not is_classification:
        raise ValueError(f"train.loss.class_weights needs a classification; model.task is {task}")
    if loss.label_smoothing and not (is_classification or task == "seq2seq"):
        raise ValueError(
            f"train.loss.label_smoothing needs a classification or seq2seq; model.task is {task}"
        )


def with_global_batch_size(train: TrainSection, scaling: ScalingSection) -> TrainSection:
    """The section with `lightning.accumulate_grad_batches` as the global batch size that it means.

    From here on there is one number, in the resolved recipe and everywhere. ValueError where the number of workers is
    not fixed.
    """
    if train.lightning is None or train.lightning.accumulate_grad_batches is None:
        return train
    if scaling.is_elastic:
        raise ValueError(
            "train.lightning.accumulate_grad_batches needs a fixed scaling.num_workers; "
            "set train.global_batch_size instead, which stays when workers come and go"
        )
    size = train.micro_batch_size * scaling.max_workers * train.lightning.accumulate_grad_batches
    lightning = train.lightning.model_copy(update={"accumulate_grad_batches": None})
    values = {name: getattr(train, name) for name in train.model_fields_set}
    return TrainSection(**{**values, "global_batch_size": size, "lightning": lightning})


class RunSpec(Section):
    """One training run, complete. `scaling` alone changes between laptop and cluster."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """Short name of the run (lower case, digits, `.`, `_`, `-`); by default the recipe's file name."""
    model: ModelSection
    adapter: AdapterSection = AdapterSection()
    data: DataSection
    train: TrainSection = TrainSection()
    scaling: ScalingSection = ScalingSection()
    storage: StorageSection = StorageSection()
    tracking: TrackingSection = TrackingSection()
    cost: CostSection = CostSection()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train.precision == "float16" and not self.scaling.use_gpu:
            raise ValueError(
                "train.precision float16 needs scaling.use_gpu; on a CPU use bfloat16 or float32"
            )
        object.__setattr__(self, "train", with_global_batch_size(self.train, self.scaling))
        refuse_task_mismatch(self.model.task, self.train)
        check_support(self.model, self.adapter, self.train, self.scaling)
        if self.scaling.strategy == "deepspeed":
            check_deepspeed(self.scaling, self.train)
        return self

    @property
    def identity(self) -> str:
        """Digest of everything that decides the result; equal for two runs of one command."""
        train = self.train.model_dump(mode="json", exclude=_TRAIN_KEYS_BESIDE_IDENTITY)
        sections = self.model_dump(mode="json", include={"name", "model", "adapter", "data"})
        return digest_of({**sections, "train": train})

    @property
    def run_id(self) -> str:
        """The run that the same command always means."""
        return f"{self.name}-{self.identity.removeprefix('sha256:')[:8]}"

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved recipe, which gives the same run again."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def load_spec(path: Path, overrides: list[str] | None = None) -> RunSpec:
    """Read and check a recipe; ConfigError names every fault with its place."""
    return spec_from_document(load_recipe(path, overrides), default_name=path.stem)


def spec_from_document(document: Document, *, default_name: str) -> RunSpec:
    """One run with the recipe's own values: `search:` is for `raytrain tune`, and `pipeline:` for `raytrain run`."""
    values = {key: value for key, value in document.values.items() if key not in RECIPE.beside}
    named = {"name": recipe_name(document, default_name), **values}
    return build(RunSpec, Document(named, document.origins, document.form))


def recipe_name(document: Document, default_name: str) -> str:
    """The name that a recipe gives itself, or its file's."""
    name: str = document.values.get("name") or default_name.lower().replace(" ", "-")
    return name

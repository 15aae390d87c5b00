"""The `train.loss:` and `train.lightning:` sections of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from raytrain.config.imports import check_import_name
from raytrain.config.section import Section

Weight = Annotated[float, Field(gt=0, le=1e6)]


class LossSection(Section):
    """What is minimised."""

    name: str | None = None
    """A registered loss, or a class of your own as `module:Class`; null = the one of `model.task`."""
    class_weights: dict[str, Weight] | Literal["balanced"] | None = None
    """How much a target of each class counts, by class name (1 where left out); balanced = every class the same in sum.
    For classifications."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target that is spread evenly over all classes. For classifications and seq2seq."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and (":" in value or not value):
            check_import_name(value)
        return value


class LightningSection(Section):
    """A LightningModule of your own, whose `training_step` gives the loss."""

    module: str
    """The class as `module:Class`; it is made with `model=` (the loaded base model) and `arguments`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the class."""
    accumulate_grad_batches: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """Micro-batches of each worker in an optimizer step, as Lightning's Trainer counts them; in place of
    `train.global_batch_size`, which it sets."""

    @field_validator("module")
    @classmethod
    def _is_a_class(cls, value: str) -> str:
        return check_import_name(value)

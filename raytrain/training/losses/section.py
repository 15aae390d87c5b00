"""The `train.loss:` section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

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
        if value is not None:
            module, colon, attribute = value.partition(":")
            if not value or (colon and not (module and attribute and ":" not in attribute)):
                raise ValueError(f"{value!r} must be a registered name or read module:Class")
        return value

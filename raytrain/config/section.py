"""The base of every config section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A strict, immutable part of a recipe: unknown keys are refused, and a docstring under each field documents it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )

    LOOKED_FOR: ClassVar[Mapping[str, str]] = {}
    """Keys that people know from elsewhere and will type here, and what to do instead."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1; in a recipe it is a slip."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and "bool" not in str(field.annotation):
            raise ValueError(f"takes no {str(value).lower()}")
        return value

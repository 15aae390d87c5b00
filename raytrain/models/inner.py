"""A model and what may be wrapped around it."""

from __future__ import annotations

from typing import Any


def inner_model(model: Any) -> Any:
    """The transformers model inside PEFT's, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model

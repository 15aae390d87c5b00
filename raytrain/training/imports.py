"""A user's own classes, which a recipe names as `module:Class`."""

from __future__ import annotations

import importlib
from typing import Any

from raytrain.errors import ConfigError


def check_import_name(name: str) -> str:
    """`name` itself; ValueError where it does not read module:Class."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute) or ":" in attribute:
        raise ValueError(f"{name!r} must read module:Class")
    return name


def import_named(name: str, *, key: str) -> Any:
    """What `name` means, for the recipe's `key`. Raises ConfigError where it cannot be imported or is not callable."""
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise ConfigError(
            f"{key}: {name} cannot be imported",
            why=f"{type(error).__name__}: {error}",
            fix="check module:Class; the module must be importable on every worker",
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{key}: {name} makes nothing",
            why=f"it is a {type(found).__name__}",
            fix="name a class, or a function that makes one",
        )
    return found

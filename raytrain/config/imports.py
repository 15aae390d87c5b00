"""A user's own classes, which a recipe names as `module:Class`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from raytrain.errors import ConfigError, PlatformError


def check_import_name(name: str) -> str:
    """`name` itself; ValueError where it does not read module:Class."""
    module, colon, attribute = name.partition(":")
    if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
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
            fix="check module:name; the module must be importable on every worker",
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{key}: {name} makes nothing",
            why=f"it is a {type(found).__name__}",
            fix="name a class, or a function that makes one",
        )
    return found


def make_named(name: str, *given: Any, key: str, takes: str, named: Mapping[str, Any] | None = None) -> Any:
    """Import what `name` means and call it with what is `given` and `named`; `takes` says that in words.

    Raises ConfigError where it cannot be imported or made.
    """
    builder = import_named(name, key=key)
    try:
        return builder(*given, **(named or {}))
    except PlatformError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{key}: {name} cannot be made", why=f"{type(error).__name__}: {error}", fix=f"it takes {takes}"
        ) from error

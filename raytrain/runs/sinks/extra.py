"""Packages that are not installed unless somebody asks for them."""

from __future__ import annotations

import importlib.util

from raytrain.errors import ConfigError


def require_extra(package: str, key: str) -> None:
    """ConfigError where `package`, which the recipe's `key` needs, is not installed. Does not import it."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{key} is set, but {package} is not installed",
            why=f"{package} is an extra of raytrain, left out by default",
            fix=f"pip install 'raytrain[{package}]', or set {key}=null",
        )

"""A command as tests type it: the fixture `told` runs it with --json, and gives its exit code and what it printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Told = Callable[..., tuple[int, dict[str, Any]]]

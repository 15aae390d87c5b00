"""What goes on once the database answers again: a restart of it ends neither a job nor a scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from raytrain.errors import StorageError

TRY_FOR_S = 3600.0
TRY_EVERY_S = 5.0

_STEP_S = 0.2

T = TypeVar("T")


def patiently(
    ask: Callable[[], T], told: Callable[[str], object], is_over: Callable[[], bool] = lambda: False
) -> T | None:
    """What `ask` returns, tried for an hour where it raises StorageError; None where it is over before."""
    deadline = time.monotonic() + TRY_FOR_S
    while True:
        try:
            return ask()
        except StorageError as error:
            if time.monotonic() > deadline:
                raise
            told(f"tried again in {TRY_EVERY_S:.0f} s: {error.what} ({error.why})")
        until = time.monotonic() + TRY_EVERY_S
        while time.monotonic() < until:
            if is_over():
                return None
            time.sleep(min(_STEP_S, TRY_EVERY_S))

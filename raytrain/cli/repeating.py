"""Commands that look once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from raytrain.cli.output import report_error
from raytrain.errors import StorageError


def repeated(look: Callable[[], int], every: float | None, as_json: bool) -> int:
    """The exit code of the only look. With `every`, in seconds, it goes on until Ctrl-C, also where storage or database
    are away for a while."""
    while True:
        try:
            code = look()
            if every is None:
                return code
        except StorageError as error:
            if every is None:
                raise
            report_error(error, as_json)
        time.sleep(every)

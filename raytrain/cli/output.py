"""How every command speaks: results on stdout, everything else on stderr; with --json one object on stdout alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.errors import PlatformError

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray and the libraries log.")]


def emit(result: dict[str, Any], as_json: bool, show: Callable[[Console], None]) -> None:
    """Print a command's result: as one object, or for a person through `show`."""
    if as_json:
        text = json.dumps(result, default=str, ensure_ascii=False)
        # Half of a surrogate pair cannot be printed; as an escape it is JSON as well.
        print(text.encode("utf-8", "backslashreplace").decode())
        return
    from rich.console import Console

    show(Console())


def stderr_console() -> Console:
    """For progress and notes, which must not mix with results."""
    from rich.console import Console

    return Console(stderr=True)


def exit_code_when_stopped(by: str | None) -> int:
    """As a shell expects of a process that a signal ended, although it ended in order; 0 where no signal did.

    A queue must tell what was stopped otherwise from what is done: there that has a code of its own.
    """
    if by in ("SIGINT", "SIGTERM"):
        return 128 + signal.Signals[by]
    from raytrain.runs.queue.ending import IN_QUEUE, STOPPED_CODE

    return STOPPED_CODE if by is not None and os.environ.get(IN_QUEUE) else 0


def report_error(error: PlatformError, as_json: bool) -> None:
    """What, why and fix: as an object on stdout under --json, else as three lines on stderr."""
    if as_json:
        print(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
        return
    red, reset = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}error:{reset} {error.what}\n  why: {error.why}\n  fix: {error.fix}", file=sys.stderr)

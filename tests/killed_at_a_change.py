"""A process that is killed at any one of its changes on the disk."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_CHANGES = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.link",
    "os.remove",
    "os.chmod",
    "os.rmdir",
    "shutil.copyfile",
}
_WITHIN = {"os.remove", "os.rmdir"}
"""Their last argument is the open folder that their path is relative to, or -1."""


def run_until(point: int, folder: Path, *steps: Callable[[], object]) -> int:
    """The steps in a process of its own, which dies at its change number `point` below the folder (0: never).

    Returns its exit.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event not in _CHANGES or str(folder) not in _place(event, arguments):
                return
            if event == "open" and not (
                isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            ):
                return
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            for step in steps:
                step()
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _place(event: str, arguments: tuple[object, ...]) -> str:
    """What is changed. `shutil.rmtree` names files within a folder that it has open."""
    place = str(arguments[0])
    within = arguments[-1]
    if event in _WITHIN and isinstance(within, int) and within >= 0:
        return str(Path(f"/proc/self/fd/{within}").readlink() / place)
    return place

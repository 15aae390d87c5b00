"""A bundle's model, loaded and asked in a process of its own, before anybody relies on it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from raytrain.errors import MachineError, RefusedError
from raytrain.release.bundle.description import FORMAT_FOLDERS, LOADABLE, BundleDescription
from raytrain.release.fresh_process import last_words, offline_surroundings
from raytrain.release.weight_files import unloadable
from raytrain.storage.location import Location

_LOAD_TIMEOUT_S = 600.0
_BY_OTHERS = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
"""How a process ends that somebody else ended: a person, or a kernel without memory."""


def load_in_fresh_process(folder: Path, description: BundleDescription, cache: Location) -> str:
    """Load the bundle over its base model with `raytrain.release.loading`, and run one token through it. In words, what
    came.

    Raises IntegrityError with that process's last words where it does not load, RefusedError where the bundle holds no
    format that is loaded here, MachineError where the process did not come to its end, which says nothing of the
    bundle.
    """
    held = next((one for one in LOADABLE if one in description.formats), None)
    if held is None:
        raise RefusedError(
            f"{folder} cannot be loaded here",
            why=f"it holds {', '.join(description.formats)}, and neither {' nor '.join(LOADABLE)}",
            fix="raytrain check export loads every format",
        )
    asked = [str(folder / FORMAT_FOLDERS[held]), str(cache), description.dtype]
    # -P: what lies in the caller's folder is not taken for a module. PYTHONPATH counts: raytrain may be found by it.
    command = [sys.executable, "-P", "-m", "raytrain.release.loading", *asked]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env=offline_surroundings(),
            timeout=_LOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unfinished(folder, f"after {_LOAD_TIMEOUT_S:g} s it was still loading") from error
    if done.returncode in _BY_OTHERS:
        raise _unfinished(folder, last_words(done.returncode, done.stderr))
    if done.returncode:
        raise unloadable(folder, f"it does not load: {last_words(done.returncode, done.stderr)}")
    return done.stdout.strip()


def _unfinished(folder: Path, why: str) -> MachineError:
    return MachineError(
        f"{folder} was not loaded to the end",
        why=f"{why}; nothing is known to be wrong with it",
        fix="try again when this machine has time and memory, or leave --load out: its weights were read all the same",
    )

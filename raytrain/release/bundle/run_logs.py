"""What a run wrote down while it trained, as a bundle takes it along: without the places of this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from raytrain.runs.folder import EVENTS_FILE, LOG_FILE, METRICS_FILE
from raytrain.storage.home import raytrain_home, run_folder

_LONGEST_LOG_BYTES = 2**24
"""A bundle travels, and the scan reads some 30,000 lines a second."""
_WORD = r"[^\s/,;:'\"`()]+"
_PATH = re.compile(rf"(?<![\w:/])(?:file://)?~?(?:/{_WORD}){{2,}}")
_QUOTED_PATH = re.compile(rf"(?<=(['\"`]))(?:file://)?~?(?:/{_WORD}(?: +{_WORD})*){{2,}}(?=\\?\1)")
"""From quote to quote, which are escaped where JSON holds them; there a name may have spaces, though not at its ends:
`/a/b and /c/d` are two."""


def logs_of(run_id: str, notes: list[str]) -> dict[str, str]:
    """By the names of its files. What is not taken along is told to `notes`."""
    folder, found = run_folder(run_id), {}
    for name in (LOG_FILE, METRICS_FILE, EVENTS_FILE):
        file = folder / name
        try:
            size = file.stat().st_size
            if size <= _LONGEST_LOG_BYTES:
                found[name] = without_paths(file.read_text(encoding="utf-8", errors="replace"))
            else:
                notes.append(f"The run's {name} is not in the bundle: it has {size / 2**20:.0f} MiB.")
        except OSError as error:
            notes.append(f"The run's {name} is not at hand where this card was written: {error.strerror}.")
    return found


def without_paths(text: str) -> str:
    """With the last names only of files and folders of this machine: what is written into a bundle travels.

    A name with spaces is known for one between quotes, as JSON's values have them, and below the folders that this
    process's user has; elsewhere a path ends where a space comes.
    """
    for place in _spaced_folders():
        text = text.replace(f"{place}/", f"{place.replace(' ', '_')}/")
    return _PATH.sub(_last_name, _QUOTED_PATH.sub(_last_name, text))


def _last_name(found: re.Match[str]) -> str:
    return PurePosixPath(found[0]).name


def _spaced_folders() -> list[str]:
    """The deepest first: its name holds those of the others."""
    own = os.path.expanduser("~")  # noqa: PTH111 - unlike pathlib's it raises nothing where there is no home
    places = [above for one in (Path(own), raytrain_home()) for above in (one, *one.parents)]
    return sorted({str(one) for one in places if " " in one.name}, reverse=True)

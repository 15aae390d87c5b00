"""Sources that lie on an object store: their files are brought here once, and then read like others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from raytrain.errors import DataError
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_hex, digest_of


def is_remote(pattern: str) -> bool:
    return "://" in pattern


def fetch(uri: str) -> Path:
    """The local copy of a file or folder. It is made anew where names, sizes or times of change are others than before.

    Raises DataError where nothing is there, StorageError where the store cannot be reached.
    """
    location = Location.parse(uri)
    if location.is_local:
        return location.path
    files = location.files()
    if not files:
        raise DataError(
            f"`{uri}` is not there",
            why="nothing lies at this place, or this user may not see it",
            fix="name a file or a folder, without wildcards; a bucket's names are case-sensitive",
        )
    state = [[one.name, one.size_bytes, one.modified_ns] for one in files]
    home = raytrain_home() / "sources" / digest_hex(digest_of([str(location), state]))[:16]
    copy = home / location.name
    if copy.exists():
        return copy
    staged = home.with_name(f"{home.name}.{os.getpid()}")
    is_file = len(files) == 1 and files[0].location == location
    for one in files:
        place = staged / location.name if is_file else staged / location.name / one.name
        place.parent.mkdir(parents=True, exist_ok=True)
        one.location.download_to(place)
    if home.exists():  # another run was faster
        shutil.rmtree(staged)
    else:
        staged.rename(home)
    return copy

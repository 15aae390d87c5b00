"""Places of artifacts that a person names: one that is to be read, and one that is to be written."""

from __future__ import annotations

from os import PathLike

from raytrain.errors import ConfigError
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME


def place_of_artifact(named: str | PathLike[str]) -> Location:
    """The place of an artifact that is to be read.

    Raises ConfigError where nothing is there at all, which is a slip of the pen; what is there and is damaged, or is no
    artifact, is for `open_artifact` to tell. What raytrain itself has noted goes straight there: it must not be gone.
    """
    place = Location.parse(named)
    if not place.exists():
        raise ConfigError(
            f"there is no artifact at {named}",
            why="nothing is there",
            fix="check the path, or the run's id where a run was meant: `raytrain runs list`",
        )
    return place


def place_for_artifact(text: str) -> Location:
    """The place that a user names for an artifact, which takes the place of what lies there.

    Raises ConfigError where something else than an artifact is there: nothing of a user's is ever swept away.
    """
    place = Location.parse(text)
    is_taken = bool(place.children()) or (place.is_local and place.path.is_file())
    if is_taken and not (place / MANIFEST_NAME).exists():
        raise ConfigError(
            f"{text} is there already, and is no artifact",
            why="an artifact is a folder of its own, and takes the place of what lies there",
            fix="name a folder that is not there yet",
        )
    return place

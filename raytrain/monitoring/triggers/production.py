"""When what is in production was trained, by the registry and the records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from raytrain.errors import PlatformError
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import PRODUCTION, Released
from raytrain.release.registry.store import open_store
from raytrain.runs.records import Records
from raytrain.storage.home import raytrain_home

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class TrainedAt:
    """Seconds since the epoch; None = nobody can say. `note`: what a person should know of it."""

    at: float | None
    note: str | None = None


def when_trained(name: str, place: str | None, records: Records) -> TrainedAt:
    """place: of the registry; None = RAYTRAIN_HOME/registry. A registry that cannot be read is a note, not an error:
    what else is looked at does not hang on it. Raises StorageError where the records cannot be used."""
    try:
        registry = Registry(open_store(place or str(raytrain_home() / "registry")))
        state = registry.state(name)
    except PlatformError as error:
        return TrainedAt(None, f"the age of {name} is not known: {error.what} ({error.why}); {error.fix}")
    version = state.aliases.get(PRODUCTION)
    if version is None:
        return TrainedAt(None, f"nothing of {name} is in production yet, so nothing is too old")
    released = state.versions[version]
    at = _made_at(released, records)
    return TrainedAt(at) if at is not None else _registered_at(name, released)


def _made_at(released: Released, records: Records) -> float | None:
    """When a run wrote what was released. The same weights made again are as old as they were."""
    subject = released.entry.details.get("subject")
    if not isinstance(subject, str) or not _DIGEST.fullmatch(subject):
        return None
    found = records.find_artifact(subject)
    times = [] if found is None else [use.time for use in found.uses if use.direction == "written"]
    return min(times, default=None)


def _registered_at(name: str, released: Released) -> TrainedAt:
    told = f"no run of these records has made {name}@{released.version}"
    try:
        at = released.entry.written_at
    except ValueError:
        return TrainedAt(None, f"{told}, and its entry in the registry has no time: {released.entry.time!r}")
    day = datetime.fromtimestamp(at, UTC)
    return TrainedAt(at, f"{told}: its age is counted from {day:%Y-%m-%d}, when it was registered")

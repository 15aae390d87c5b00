"""From a dataset, an adapter, a model or a run to the dataset that was learned from."""

from __future__ import annotations

from raytrain.errors import ConfigError, DataError, PlatformError
from raytrain.runs.records import Records
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest, short_digest
from raytrain.storage.named_places import place_of_artifact


def find_dataset(reference: str, records: Records) -> Artifact:
    """Raises ConfigError where nothing is called so, DataError where its lineage leads to no dataset that is there."""
    place = Location.parse(reference)
    if "://" in reference or (place / MANIFEST_NAME).exists():
        manifest = read_manifest(place_of_artifact(reference))
        if manifest.kind == "dataset":
            return open_artifact(place)
        return _recorded(reference, manifest.parents.get("dataset"), records)
    try:
        run = records.run_with_prefix(reference)
    except ConfigError as error:
        raise ConfigError(
            f"{reference} is no dataset, run or adapter",
            why="no artifact lies there, and no run is called so",
            fix="give the folder or URI of a dataset or adapter, or a run's id from `raytrain runs list`",
        ) from error
    used = [one for one in records.artifacts(run.id) if one.role == "dataset" and one.direction == "read"]
    return _recorded(f"run {run.id}", used[-1].digest if used else None, records)


def _recorded(name: str, digest: str | None, records: Records) -> Artifact:
    if digest is None:
        raise DataError(
            f"{name} does not say which rows it learned from",
            why="no dataset stands among its parents",
            fix="give the dataset itself",
        )
    known = records.find_artifact(digest)
    if known is None or known.uri is None:
        raise _lost(name, digest, "the records do not say where it lies")
    try:
        found = open_artifact(Location.parse(known.uri), kind="dataset")
    except PlatformError as error:
        raise _lost(name, digest, error.line) from error
    if found.digest != digest:
        raise _lost(name, digest, f"{known.uri} holds another dataset now")
    return found


def _lost(name: str, digest: str, why: str) -> DataError:
    return DataError(
        f"the rows that {name} learned from cannot be found: dataset {short_digest(digest)}",
        why=why,
        fix="prepare the dataset again with the same recipe, or give it itself",
    )

"""What is to be asked, whichever way it is named: a version in the registry, a bundle, or what else answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import ConfigError
from raytrain.release.bundle.description import BUNDLE_KIND, FORMAT_FOLDERS, LOADABLE, read_description
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest


@dataclass(frozen=True)
class Runnable:
    """Something that answers."""

    reference: str
    """As an evaluation takes it."""
    subject: str | None
    """Digest of the trained artifact; None where what answers says it itself."""
    lineage: str
    """What says from which rows it learned: a bundle's folder, or the reference."""


def find_runnable(reference: str, registry: Registry, ring: KeyRing) -> Runnable:
    """NAME@VERSION or NAME@ALIAS is verified first, and so are the files of a bundle's folder; anything else is left as
    it is. Raises NotRegisteredError where the registry has no such version, ConfigError where a bundle holds no format
    that can be asked."""
    name, _, wanted = reference.partition("@")
    # No model of a hub has an @ in its name; a folder may.
    if wanted and "/" not in reference and (name in registry.names() or not Path(reference).exists()):
        return _of_bundle(registry.verified(reference, ring).artifact.path)
    if "://" not in reference and (Path(reference) / MANIFEST_NAME).is_file():
        place = Location(str(Path(reference).absolute()))
        if read_manifest(place).kind == BUNDLE_KIND:
            return _of_bundle(open_artifact(place).path)
    return Runnable(reference, None, reference)


def _of_bundle(folder: Path) -> Runnable:
    description = read_description(folder)
    held = next((one for one in LOADABLE if one in description.formats), None)
    if held is None:
        raise ConfigError(
            f"{folder} cannot be asked here",
            why=f"it holds {', '.join(description.formats)}; an evaluation takes {' or '.join(LOADABLE)}",
            fix="export one of these as well",
        )
    return Runnable(str(folder / FORMAT_FOLDERS[held]), description.subject, str(folder))

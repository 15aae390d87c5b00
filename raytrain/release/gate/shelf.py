"""Where what was decided and approved is kept: beside the bundles of its name, so that it goes where they go.

NAME/gate/approvals/<digest>/     a signed statement
NAME/gate/records/<digest>/       a signed record of a promotion or a rollback
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from raytrain.errors import IntegrityError, PlatformError
from raytrain.release.keys import KeyRing, SigningKey
from raytrain.release.registry.registry import Registry
from raytrain.release.signing import Signed, sign, verify
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location, translated_errors
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest
from raytrain.storage.provenance import collect_provenance

Shelf = Literal["approvals", "records"]


def shelf_folder(registry: Registry, name: str, shelf: Shelf) -> Path:
    return registry.folder / name / "gate" / shelf


def put(
    folder: Path,
    kind: str,
    write: Callable[[Path], None],
    key: SigningKey,
    ring: KeyRing,
    *,
    parents: Mapping[str, str],
) -> Artifact:
    """Write an artifact under its digest, and sign it. The same content is kept, with its time and signature.

    The signature comes last: whoever is killed before leaves an artifact that counts for nothing, and the same call
    goes on with it.
    """
    with translated_errors(Location(str(folder)), "write"):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raytrain-gate-") as scratch:
        staged = Path(scratch) / "staged"
        with ArtifactWriter(Location(str(staged)), kind=kind, parents=parents) as writer:
            write(writer.path)
            digest = writer.commit(collect_provenance()).digest
        place = folder / digest.removeprefix("sha256:")
        with ArtifactWriter(Location(str(place)), kind=kind, parents=parents) as writer:
            shutil.copytree(
                staged, writer.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_NAME)
            )
            artifact = writer.commit(open_artifact(Location(str(staged))).manifest.provenance)
    try:
        verify(place, ring)
    except PlatformError:
        sign(place, key)
    return artifact


def get(folder: Path, digest: str, ring: KeyRing) -> Signed:
    """Raises RefusedError or IntegrityError where it is not there as it was signed by a key that counts."""
    place = folder / digest.removeprefix("sha256:")
    if not place.is_dir():
        raise IntegrityError(
            f"{digest} is not in {folder}",
            why="the journal names it, and it is not there",
            fix="put back a copy of the registry that is whole",
        )
    signed = verify(place, ring)
    if signed.artifact.digest != digest:
        raise IntegrityError(
            f"{place} is another record",
            why=f"it is {signed.artifact.digest}",
            fix="put back a copy of the registry that is whole",
        )
    return signed


def all_about(folder: Path, bundle: str) -> list[Path]:
    """Of everything that was put there, signed or not, what its manifest says to be about this bundle."""
    if not folder.is_dir():
        return []
    found = sorted(one for one in folder.iterdir() if (one / MANIFEST_NAME).is_file())
    return [one for one in found if read_manifest(Location(str(one))).parents.get("bundle") == bundle]

"""What becomes of a signature whose bundle is exported anew, without a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from raytrain.errors import IntegrityError
from raytrain.release.bundle.export import commit
from raytrain.release.keys import KeyRing
from raytrain.release.signing import sign, signature_place, verify
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location


def export(folder: Path, text: str, day: int, *, replace: bool = True) -> None:
    with ArtifactWriter(Location(str(folder)), kind="bundle") as writer:
        (writer.path / "README.md").write_text(text)
        commit(writer, {"created_at": day}, replace=replace)


def test_a_signature_goes_with_what_it_was_of(tmp_path: Path, ring: KeyRing) -> None:
    folder, key = tmp_path / "bundle", ring.signing_key("release")
    export(folder, "one", 1, replace=False)
    sign(folder, key)
    export(folder, "one", 2)
    assert verify(folder, ring).key.name == "release", "the same is kept as it is"
    with pytest.raises(IntegrityError, match="another artifact"):
        export(folder, "two", 3, replace=False)
    assert verify(folder, ring).key.name == "release"
    export(folder, "two", 3)
    assert not signature_place(folder).exists()
    sign(folder, key)
    assert verify(folder, ring).artifact.manifest.provenance == {"created_at": 3}

"""Files that nobody's export wrote: none is taken, nothing is written, and it is said of the file."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from releases import Trained, release

from raytrain.errors import IntegrityError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.transfer import export_version, import_version

pytestmark = pytest.mark.whole

DEEP = b"[" * 100_000

Changes = dict[str, bytes]
"""By the name in the file; what is not there yet is added."""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version.json": DEEP}, "it does not say what it holds"),
        ({"journal.jsonl": DEEP + b"\n"}, "it cannot be read"),
        ({"bundle/bundle.json/x": b"1"}, "a file and a folder"),
        ({"bundle/" + "x" * 300: b"1"}, "a longer name than any disk takes"),
        ({"bundle/" + "é" * 130: b"1"}, "a longer name than any disk takes"),
        ({"../x": b"1"}, "would be written elsewhere"),
        ({"elsewhere/x": b"1"}, "does not belong there"),
    ],
)
def test_it_is_not_taken(tmp_path: Path, ring: KeyRing, changes: Changes, why: str) -> None:
    source, goal = Registry(tmp_path / "source"), Registry(tmp_path / "goal")
    release(source, ring, tmp_path / "bundle", Trained(), "1.0.0")
    good, odd = tmp_path / "good.tar", tmp_path / "odd.tar"
    export_version(source, "sums@1.0.0", good, ring)
    with tarfile.open(good) as old, tarfile.open(odd, "w") as new:
        members = {one.name: one for one in old}
        for name in [*members, *(changes.keys() - members.keys())]:
            stream = old.extractfile(members[name]) if name in members else None
            content = changes.get(name) or (stream.read() if stream else b"")
            one = tarfile.TarInfo(name)
            one.size = len(content)
            new.addfile(one, io.BytesIO(content))
    with pytest.raises(IntegrityError) as caught:
        import_version(goal, odd, ring, why="a test")
    assert why in caught.value.why and "odd.tar" in caught.value.what
    assert goal.names() == []
    assert import_version(goal, good, ring, why="a test")[0] == "sums"

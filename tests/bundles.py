"""Small signed artifacts, as tests of releases need them."""

from __future__ import annotations

import random
from pathlib import Path

from raytrain.release.keys import KeyRing
from raytrain.release.signing import sign
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location


def make_bundle(folder: Path, seed: int = 0) -> Path:
    """Four files, one in a folder and one empty."""
    generator = random.Random(seed)
    with ArtifactWriter(Location(str(folder)), kind="report") as writer:
        (writer.path / "tokenizer").mkdir()
        for name in ("adapter.safetensors", "tokenizer/tokenizer.json", "card.md", "empty.txt"):
            content = generator.randbytes(0 if name == "empty.txt" else generator.randint(40, 400))
            (writer.path / name).write_bytes(content)
        writer.commit({"seed": seed})
    return folder


def signed_bundle(folder: Path, ring: KeyRing, seed: int = 0) -> Path:
    """By the ring's key `release`."""
    make_bundle(folder, seed)
    sign(folder, ring.signing_key("release"))
    return folder

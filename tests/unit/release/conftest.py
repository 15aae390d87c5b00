from __future__ import annotations

from pathlib import Path

import pytest

from raytrain.release.keys import KeyRing


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """With a key `release` that signs."""
    ring = KeyRing(tmp_path / "keys")
    ring.generate("release")
    return ring

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import signed_bundle
from releases import Evidence, Trained, release

from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.promote import Desk
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.storage.location import Location


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """With a key `release` that signs."""
    ring = KeyRing(tmp_path / "keys")
    ring.generate("release")
    return ring


@pytest.fixture
def bundles(tmp_path: Path, ring: KeyRing) -> list[Path]:
    return [signed_bundle(tmp_path / f"bundle-{seed}", ring, seed) for seed in range(2)]


@pytest.fixture(scope="session")
def whole_evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Made once; whoever changes it takes a copy."""
    return Evidence(tmp_path_factory.mktemp("evidence")).write()


@pytest.fixture
def evidence(whole_evidence: Evidence, tmp_path: Path) -> Evidence:
    shutil.copytree(whole_evidence.folder, tmp_path / "evidence")
    return replace(whole_evidence, folder=tmp_path / "evidence")


@pytest.fixture
def desk(tmp_path: Path, ring: KeyRing) -> Desk:
    registry = Registry(tmp_path / "registry")
    release(registry, ring, tmp_path / "bundle", Trained(), "1.0.0")
    return Desk(registry, ring, Shelves(Location(str(tmp_path / "storage"))))


@pytest.fixture
def reviewers(ring: KeyRing) -> KeyRing:
    for name in ("ada", "grace", "katherine", "mallory"):
        ring.generate(name)
    return ring


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One file, to which another is put."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "README.md").write_text("# Assistant\n")
    return tmp_path / "small"

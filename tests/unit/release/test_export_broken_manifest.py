"""The program that serves a bundle, started beside a manifest that nobody can read: one line, exit code 5."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raytrain.release.bundle.parity.fresh import LOADER
from raytrain.storage.manifest import file_sha256

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """With a manifest that fits; `merged` holds nothing that could be loaded."""
    shutil.copy(LOADER, tmp_path / "inference.py")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "config.json").write_text("{}")
    (tmp_path / "bundle.json").write_text('{"formats": ["merged"]}')
    listed = {
        name: {"sha256": file_sha256(tmp_path / name)} for name in ("bundle.json", "merged/config.json")
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"files": listed}))
    return tmp_path


def refused(bundle: Path) -> str:
    """What it says, without the line on which it tells where it listens."""
    command = [sys.executable, str(bundle / "inference.py"), "--port", "0", "--format", "merged"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5, done.stderr
    listening, *told = done.stderr.splitlines()
    assert listening.startswith("listening on") and len(told) == 1, done.stderr
    return told[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "manifest.json cannot be read"),
        (DEEP, "manifest.json cannot be read"),
        ("{}", "manifest.json is no manifest"),
        ("[]", "manifest.json is no manifest"),
        ("null", "manifest.json is no manifest"),
        ('{"files": []}', "manifest.json is no manifest"),
        ('{"files": {"merged/a": 5}}', "manifest.json is no manifest"),
        ('{"files": {"merged/a": {}}}', "manifest.json is no manifest"),
        ('{"files": {}}', "bundle.json has SHA-256"),
        ('{"files": {"bundle.json": {"sha256": null}}}', "bundle.json has SHA-256"),
    ],
    ids=range(10),
)
def test_a_manifest_that_is_none_is_refused_in_one_line(content: str, words: str, bundle: Path) -> None:
    (bundle / "manifest.json").write_text(content)
    told = refused(bundle)
    assert told.startswith("refused: ") and words in told


@pytest.mark.parametrize("name", ["merged/" + "a" * 5_000, "merged/a\0b", "merged/\ud800"], ids=range(3))
def test_a_name_that_no_file_can_have_is_one_that_is_missing(name: str, bundle: Path) -> None:
    place = bundle / "manifest.json"
    listed = json.loads(place.read_text())["files"]
    place.write_text(json.dumps({"files": {**listed, name: {"sha256": "0"}}}))
    assert "is missing; manifest.json names it" in refused(bundle)


def test_a_damaged_bundle_json_is_told_by_its_digest(bundle: Path) -> None:
    (bundle / "bundle.json").write_text("{}")
    assert "bundle.json has SHA-256" in refused(bundle)

"""What a person mistypes is theirs (2), rows that are not there are the data's (3), what is damaged stays 5."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundles import make_bundle
from commands import Told

pytestmark = pytest.mark.whole

ARTIFACTS = [
    ["export"],
    ["check", "export"],
    ["sign"],
    ["verify"],
    ["scan"],
    ["sbom"],
    ["registry", "import"],
    ["data", "show"],
    ["contamination", "--suite", "x"],
    ["registry", "add", "sums", "--why", "x"],
    ["adapter", "deploy", "--name", "sums"],
]


@pytest.mark.parametrize("command", ARTIFACTS, ids=" ".join)
def test_a_path_that_is_not_there(told: Told, tmp_path: Path, command: list[str]) -> None:
    code, found = told(*command, tmp_path / "nowhere")
    assert (code, found["error"]["kind"]) == (2, "config"), found
    assert all(found["error"][one].strip() for one in ("what", "why", "fix"))
    assert not (tmp_path / "nowhere.sig").exists()


@pytest.mark.parametrize(
    "command", [["sign"], ["export"], ["registry", "add", "sums", "--why", "x"]], ids=" ".join
)
def test_what_is_there_and_damaged(told: Told, tmp_path: Path, command: list[str]) -> None:
    assert told("keys", "generate")[0] == 0
    folder = make_bundle(tmp_path / "bundle")
    (folder / "manifest.json").write_text("{}")
    assert told(*command, folder)[0] == 5


ROWS = [
    ["data", "prepare", "--source"],
    ["variants", "annotated", "--output", "out.jsonl"],
    ["code", "grade", "--repositories", ".", "instances.jsonl"],
    ["code", "check", "--repositories", "."],
]


@pytest.mark.parametrize("command", ROWS, ids=" ".join)
def test_rows_that_are_not_there(told: Told, tmp_path: Path, command: list[str]) -> None:
    code, found = told(*command, tmp_path / "nowhere.jsonl")
    assert (code, found["error"]["kind"]) == (3, "data"), found


NAMES = [
    ["promote", "smus@1.0.0", "--to", "dev"],
    ["approve", "smus@1.0.0", "--to", "dev", "--role", "reviewer"],
    ["rollback", "smus"],
]


@pytest.mark.parametrize("command", NAMES, ids=" ".join)
def test_a_wrong_name_is_told_before_a_missing_key(told: Told, tmp_path: Path, command: list[str]) -> None:
    assert told("keys", "generate")[0] == 0
    folder = make_bundle(tmp_path / "bundle")
    told("sign", folder)
    assert told("registry", "add", "sums", folder, "--why", "first")[0] == 0
    shutil.rmtree(tmp_path / "home" / "keys")
    code, found = told(*command)
    assert code == 5 and found["error"]["what"] == "smus is not in the registry"
    assert found["error"]["fix"] == "did you mean sums?"

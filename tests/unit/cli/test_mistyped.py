"""What a person mistypes is theirs (2), rows that are not there are the data's (3), what is damaged stays 5."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundles import make_bundle
from commands import Told
from releases import Trained, make_release

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


REFERENCES = [
    ["promote", "{}", "--to", "production"],
    ["registry", "promote", "{}", "--to", "production"],
    ["promote", "{}", "--to", "production", "--dry-run"],
    ["approve", "{}", "--to", "production", "--role", "reviewer", "--why", "x"],
    ["registry", "verify", "{}"],
    ["registry", "tag", "{}", "+x"],
    ["registry", "withdraw", "{}", "--why", "x"],
    ["registry", "compare", "{}", "sums@dev"],
    ["registry", "diff", "sums@dev", "{}"],
    ["registry", "export", "{}", "sums.tar"],
    ["adapter", "test", "{}", "--name", "sums", "--against", "dev"],
    ["rollback", "sums", "--to", "{}"],
]


@pytest.mark.slow
def test_an_alias_that_no_version_has_is_5_and_what_is_no_reference_2(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told("keys", "generate")[0] == 0
    make_release(tmp_path / "bundle", Trained())
    assert told("adapter", "deploy", tmp_path / "bundle", "--name", "sums", "--to", "dev")[0] == 0
    before = told("registry", "log", "sums")[1]
    for command in REFERENCES:
        # staging is an alias that nothing has, live is none at all, 9.9.9 was never released.
        for wanted, code in (("staging", 5), ("previous", 5), ("live", 5), ("9.9.9", 5), ("1.x", 2)):
            reference = wanted if command[0] == "rollback" else f"sums@{wanted}"
            found = told(*(reference if word == "{}" else word for word in command))
            kind = "not_registered" if code == 5 else "config"
            assert (found[0], found[1]["error"]["kind"]) == (code, kind), (command, wanted, found)
            if code == 5:
                assert f"sums@{wanted} is not in the registry" == found[1]["error"]["what"]
                assert "dev is 1.0.0" in found[1]["error"]["why"]
    code, found = told("adapter", "test", tmp_path / "bundle", "--name", "sums")
    assert code == 5 and found["error"]["what"] == "sums@production is not in the registry"
    code, found = told("registry", "promote", "sums@dev", "--to", "live")
    assert code == 5 and "no other alias is moved by a gate" in found["error"]["fix"]
    assert told("registry", "log", "sums")[1] == before, "nothing was written"


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

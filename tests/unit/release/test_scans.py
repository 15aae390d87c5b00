"""Whatever must not be handed on is found, wherever it lies; what is clean passes, and who read it is told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import PICKLES, SUBJECT, found, key_of, refused
from safetensors.numpy import save_file
from tiny_models import save_tiny_tokenizer

from raytrain.cli.main import run
from raytrain.errors import ConfigError
from raytrain.release.scans.report import not_as_scanned
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a bundle is before it is sealed: weights, tokenizer, and one file of each kind that is generated."""
    bundle = tmp_path / "bundle"
    adapter = bundle / "adapter"
    adapter.mkdir(parents=True)
    save_tiny_tokenizer(adapter)
    weights = {"lora_A": np.arange(640, dtype=np.float32), "lora_B": np.zeros((8, 2), np.float32)}
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    texts = {
        "README.md": "# Assistant\n\ncertified sums.\n\n```python\nimport json\n```\n",
        "LICENSE": "Apache License\nVersion 2.0, January 2004\n",
        "Dockerfile": 'FROM python:3.11\nENV HF_HUB_OFFLINE=1\nCMD ["python", "inference.py"]\n',
        "serve.yaml": "applications:\n- name: assistant\n  import_path: inference:app\n  args: {token_limit: 256}\n",
        "requirements.txt": "certifi\nclick\ntorch==2.13.0 --hash=sha256:" + "ab" * 32 + "\n",
        "inference.py": "import json\n\n\ndef read(password: str | None = None) -> str:\n    return json.dumps({})\n",
        "bundle.json": json.dumps(
            {"subject": SUBJECT, "base_model": {"digest": "sha256:" + "0a" * 32}}, indent=1
        ),
        "logs/metrics.jsonl": "".join(
            json.dumps({"global_step": i, "train/loss": 1 / (i + 1)}) + "\n" for i in range(9)
        ),
        "notebook.ipynb": json.dumps({"cells": [{"source": ["import os\n"], "outputs": []}]}),
        "reports/empty.txt": "",
    }
    for name, text in texts.items():
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text(text)
    return bundle


def test_a_clean_folder_passes_and_every_file_was_read(folder: Path) -> None:
    report = found(folder)
    assert report.findings == () and report.passed
    names = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
    assert report.files.keys() == names
    assert {name for name, one in report.files.items() if "formats" not in one.read_by} == set()
    assert report.to_json() == found(folder).to_json()
    assert report.counts["secrets"]["files"] == len(names) - 1  # one is empty


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "Dockerfile", "serve.yaml", "requirements.txt", "inference.py", "bundle.json"),
        *("logs/metrics.jsonl", "notebook.ipynb", "adapter/tokenizer_config.json", "adapter/tokenizer.json"),
    ],
)
def test_a_planted_key_is_found_in_each_generated_file(name: str, folder: Path) -> None:
    place, key = folder / name, key_of()
    text = place.read_text()
    if name.endswith((".json", ".ipynb")):
        content = json.loads(text)
        content["planted"] = {"deep": ["x", f"url https://user@host {key}"]}
        place.write_text(json.dumps(content, indent=2))
    elif name.endswith(".jsonl"):
        place.write_text(text + json.dumps({"event": f"pushed with {key}"}) + "\n")
    else:
        place.write_text(text + f"\n# {key}\n")
    report = refused(folder, name, "github_token")
    assert key not in report.to_json(), "a report is handed on, a secret is not"


def test_links_and_pipes_are_refused_and_never_opened(small: Path) -> None:
    (small / "link").symlink_to("/dev/zero")
    (small / "linked_folder").symlink_to("/")
    os.mkfifo(small / "pipe")
    report = refused(small, "link", "no_file")
    assert {one.file for one in report.findings} == {"link", "linked_folder", "pipe"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_refused(small: Path) -> None:
    (small / "README.md").chmod(0)
    refused(small, "README.md", "unreadable")


def test_a_file_that_changes_while_it_is_scanned_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raytrain.release.scans import scan as scanning

    class Meddler(scanning.FileReader):
        def read(self, content: Any) -> Any:
            reading = super().read(content)
            if content.name == "README.md":
                content.path.write_text("# Something else\n")
            return reading

    monkeypatch.setattr(scanning, "FileReader", Meddler)
    refused(small, "README.md", "changed")


@pytest.mark.parametrize("package", ["picklescan", "modelscan", "detect_secrets"])
def test_without_a_scanner_nothing_passes(package: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        found(small)
    assert package.replace("_", "-") in caught.value.fix


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be scanned"):
        found(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", ".", "empty")


def test_names_that_a_terminal_would_obey_are_refused(small: Path) -> None:
    (small / "a\x1b[2Kb.txt").write_text("words")
    (small / os.fsdecode(b"\xff.txt")).write_text("words")
    report = found(small)
    assert [one.kind for one in report.findings] == ["name", "name"] and report.to_json().isascii()
    assert all(one.file.isprintable() for one in report.findings)


def test_a_report_speaks_only_of_what_was_scanned(small: Path, tmp_path: Path) -> None:
    def sealed(name: str, text: str) -> Any:
        with ArtifactWriter(Location(str(tmp_path / name)), kind="bundle") as writer:
            (writer.path / "a.txt").write_text("a")
            told = json.loads(found(writer.path).to_json())
            (writer.path / "reports").mkdir()
            (writer.path / "reports" / "scan.json").write_text(json.dumps(told))
            (writer.path / "a.txt").write_text(text)
            artifact = writer.commit({})
        return told, open_artifact(artifact.location).manifest

    assert not_as_scanned(*sealed("same", "a")) == []
    told, manifest = sealed("other", "b")
    assert not_as_scanned(told, manifest) == ["a.txt"]
    assert not_as_scanned({}, manifest) == ["a.txt"]


def test_the_command_tells_and_ends_with_5(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", str(folder)]) == 0
    assert "passed" in capsys.readouterr().out
    (folder / "weights.bin").write_bytes(PICKLES["newest"]())
    assert run(["scan", str(folder)]) == 5
    told = capsys.readouterr().out
    assert "weights.bin" in told and "posix system" in told
    assert run(["scan", str(folder), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["passed"] is False
    assert run(["scan", str(folder / "nowhere"), "--json"]) == 2

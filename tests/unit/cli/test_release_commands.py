"""An artifact is signed, verified, released, looked at, and every refusal has its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Told

from raytrain.cli.main import run
from raytrain.release.bundle.description import ingredients_of
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location

pytestmark = pytest.mark.slow


def adapter(folder: Path, *, dataset: str = "d", base: str = "b", tokenizer: str = "t", **train: Any) -> Path:
    """As training writes them, as far as versions go by it."""
    parents = {"base_model": f"sha256:{base}", "dataset": f"sha256:{dataset}", "tokens": "sha256:x"}
    config = {
        "model": {},
        "adapter": {"lora_rank": 8},
        "data": {},
        "train": {"seed": 1, "max_steps": 10, **train},
    }
    with ArtifactWriter(Location(str(folder)), kind="adapter", parents=parents) as writer:
        (writer.path / "adapter_model.safetensors").write_text(json.dumps([dataset, train]))
        (writer.path / "tokenizer.json").write_text(tokenizer)
        writer.commit({"config": config, "seed": config["train"]["seed"]})
    return folder


def test_from_an_adapter_to_a_version_that_is_audited(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told("keys", "generate")[0] == 0
    made = {
        "first": adapter(tmp_path / "first"),
        "seed": adapter(tmp_path / "seed", seed=2),
        "rows": adapter(tmp_path / "rows", dataset="e", seed=2),
        "steps": adapter(tmp_path / "steps", dataset="e", max_steps=20),
        "base": adapter(tmp_path / "base", base="c", dataset="e"),
        "words": adapter(tmp_path / "words", base="c", tokenizer="u"),
    }
    versions = {}
    for why, folder in made.items():
        assert told("sign", folder)[0] == 0
        code, found = told("verify", folder)
        assert (code, found["verified"], found["name"]) == (0, True, "default")
        code, found = told("registry", "add", "sums", folder, "--why", why)
        assert code == 0
        versions[why] = found["version"]
    assert versions == {
        "first": "1.0.0", "seed": "1.0.1", "rows": "1.1.0", "steps": "1.2.0", "base": "2.0.0", "words": "3.0.0",
    }  # fmt: skip
    _, listed = told("registry", "list")
    assert listed["names"][0]["versions"][0]["version"] == "3.0.0"
    _, journal = told("registry", "log", "sums")
    assert [one["why"] for one in journal["entries"]] == list(made)
    assert told("registry", "verify", "sums@1.2.0")[0] == 0
    assert told("registry", "audit") == (0, {"whole": True, "faults": [], "withdrawn": []})
    assert told("registry", "doctor")[1] == {"orphans": [], "faults": []}
    for command in (
        ["list"],
        ["show", "sums"],
        ["log", "sums"],
        ["verify", "sums@1.0.0"],
        ["audit"],
        ["doctor"],
    ):
        assert run(["registry", *command]) == 0
        assert capsys.readouterr().out.strip()


def test_each_refusal_has_its_exit_code(told: Told, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter")
    assert told("sign", folder)[0] == 2, "there is no key"
    told("keys", "generate")
    assert told("verify", folder)[0] == 5, "it is not signed"
    assert told("registry", "add", "sums", folder, "--why", "new")[0] == 5
    assert told("registry", "list") == (0, {"names": [], "faults": []})
    told("sign", folder)
    assert told("registry", "add", "sums@1.0", folder, "--why", "new")[0] == 2
    assert told("registry", "add", "sums@1.0.0", folder, "--why", "new")[0] == 0
    code, error = told("registry", "add", "sums@1.0.0", folder, "--why", "again")
    assert code == 5 and "is there already" in error["error"]["what"]
    for command in (
        ["show", "other"],
        ["log", "other"],
        ["verify", "sums@2.0.0"],
        ["verify", "sums@production"],
    ):
        assert told("registry", *command)[0] == 5
    kept = next((tmp_path / "home" / "registry" / "sums" / "bundles").glob("*/tokenizer.json"))
    kept.write_text("another")
    code, found = told("registry", "audit")
    assert code == 5 and "tokenizer.json" in found["faults"][0]["what"]
    code, error = told("registry", "verify", "sums@1.0.0")
    assert code == 5 and "raytrain registry add sums BUNDLE" in error["error"]["fix"]
    assert told("registry", "add", "sums", folder, "--why", "what is damaged is put anew")[0] == 0
    assert told("registry", "verify", "sums@1.0.0")[0] == 0 and told("registry", "audit")[0] == 0


def test_what_is_broken_is_named_and_the_rest_is_shown(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told("keys", "generate")
    told("sign", adapter(tmp_path / "adapter"))
    for name in ("sums", "words"):
        told("registry", "add", name, tmp_path / "adapter", "--why", "new")
    registry = tmp_path / "home" / "registry"
    (registry / "sums" / "journal" / "00000001.json").write_text("{}")
    left = registry / "words" / "bundles" / ("0" * 64)
    left.mkdir()
    approval = registry / "_approvals.words" / "bundles" / ("1" * 64)
    approval.mkdir(parents=True)
    (approval / "manifest.json").write_text("{")
    (approval.parent / f"{approval.name}.sig").write_text("{}")
    code, found = told("registry", "list")
    assert code == 5 and [one["name"] for one in found["names"]] == ["words"]
    assert [one["name"] for one in found["faults"]] == ["sums"]
    for command in (["doctor"], ["gc", "--grace-minutes", 0]):
        code, found = told("registry", *command)
        assert code == 5 and [one["place"] for one in found["orphans"]] == [str(left)]
        assert [one["name"] for one in found["faults"]] == ["_approvals.words", "sums"]
        assert "is not a manifest" in found["faults"][0]["what"]
        assert "00000001.json" in found["faults"][1]["what"]
    assert not left.exists() and approval.exists()
    for one in ("list", "doctor", "gc"):
        assert run(["registry", one]) == 5
        assert "00000001.json" in capsys.readouterr().out.replace("\n", "")


def test_a_place_where_nothing_is_has_no_registry(told: Told, tmp_path: Path) -> None:
    typed = ("--registry", tmp_path / "typo")
    for command in (["list"], ["audit"], ["doctor"], ["gc"]):
        assert told("registry", *command)[0] == 0, "by default it is not there until something is added"
        code, error = told("registry", *command, *typed)
        assert code == 2 and "there is no registry" in error["error"]["what"]
    told("keys", "generate")
    told("sign", adapter(tmp_path / "adapter"))
    assert told("registry", "add", "sums", tmp_path / "adapter", "--why", "new", *typed)[0] == 0
    assert told("registry", "audit", *typed)[0] == 0


def test_what_the_killed_left_is_deleted_and_nothing_else(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told("keys", "generate")
    told("sign", adapter(tmp_path / "adapter"))
    told("registry", "add", "sums", tmp_path / "adapter", "--why", "new")
    bundles = tmp_path / "home" / "registry" / "sums" / "bundles"
    (released,) = [one for one in bundles.iterdir() if one.is_dir()]
    left = bundles / ("0" * 64)
    shutil.copytree(released, left)
    for command in (["doctor"], ["gc", "--dry-run"]):
        code, found = told("registry", *command)
        assert (code, [one["place"] for one in found["orphans"]]) == (0, [str(left)])
        assert left.exists()
    code, found = told("registry", "gc")
    assert (found["deleted"], found["spared"]) == ([], [str(left)]), "somebody may be about to register it"
    assert run(["registry", "gc"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"spared {left}") and "deleted" not in shown
    assert told("registry", "gc", "--dry-run", "--grace-minutes", 0)[1]["spared"] == [] and left.exists()
    code, found = told("registry", "gc", "--grace-minutes", 0)
    assert (code, found["deleted"], found["spared"]) == (0, [str(left)], [])
    assert not left.exists() and told("registry", "audit")[0] == 0


def test_what_was_not_trained_goes_by_its_parents(tmp_path: Path) -> None:
    with ArtifactWriter(
        Location(str(tmp_path / "report")), kind="report", parents={"evaluation": "sha256:e"}
    ) as one:
        (one.path / "report.md").write_text("fine")
        one.commit({"config": None})
    assert ingredients_of(open_artifact(Location(str(tmp_path / "report")))) == {"evaluation": "sha256:e"}

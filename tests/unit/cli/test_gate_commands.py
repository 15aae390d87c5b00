"""The gate as it is typed: exit codes, what is printed, the checklist, and an adapter's whole life."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from commands import Told
from releases import Evidence, Trained, make_release, write_adapter
from safetensors.numpy import load_file, save_file
from suites import SUMS, write_suite

from raytrain.cli.main import run
from raytrain.evaluation.results import open_evaluation
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import read_manifest

pytestmark = pytest.mark.whole

LAX = "targets: [{to: production, reports: [], documents: [], approvals: [{role: reviewer}], override_by: [on-call]}]"


def policy(folder: Path) -> Path:
    place = folder / "gate.yaml"
    place.write_text(
        "policy: team\nroles: [{role: reviewer, keys: [ada]}, {role: on-call, keys: [default]}]\n" + LAX
    )
    return place


def evidence_options(evidence: Evidence) -> list[str]:
    return [word for place in evidence.places for word in ("--evidence", place)]


@pytest.mark.slow
def test_from_a_bundle_to_production_by_the_default_policy(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = Evidence(tmp_path / "evidence").write()
    options = evidence_options(evidence)
    make_release(tmp_path / "bundle", Trained())
    assert told("keys", "generate")[0] == 0
    code, found = told("adapter", "deploy", tmp_path / "bundle", "--name", "sums", "--to", "staging")
    assert code == 5 and found["verdict"] == "NO-GO" and found["version"] == "1.0.0", (
        "it is registered all the same"
    )
    assert found["error"]["kind"] == "refused" and "evaluation failed" in found["error"]["why"]
    checklist = tmp_path / "checklist.md"
    words = ["promote", "sums@1.0.0", "--to", "production", *options]
    code, found = told(*words, "--dry-run", "--checklist", checklist)
    assert code == 0 and found["verdict"] == "GO" and not found["moved"] and found["record"] is None
    assert checklist.read_text().startswith("# GO: sums 1.0.0 to production")
    assert run(words) == 0
    out = capsys.readouterr().out
    assert (
        "GO: sums@1.0.0 is production now" in out
        and "record " in out
        and "suites free of training rows" in out
    )
    assert told(*words)[1]["moved"] is False
    code, found = told(
        "adapter", "deploy", tmp_path / "bundle", "--name", "sums", "--to", "staging", *options
    )
    assert code == 0 and found["version"] == "1.0.0" and found["moved"]
    code, found = told("adapter", "versions", "sums")
    assert found["aliases"] == {"production": "1.0.0", "staging": "1.0.0"}


@pytest.mark.slow
def test_approvals_and_an_override(told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("default", "ada"):
        told("keys", "generate", name)
    asked = policy(tmp_path)
    for i in range(2):
        make_release(tmp_path / f"bundle-{i}", Trained(dataset=f"sha256:{i}"))
        told("sign", tmp_path / f"bundle-{i}")
        told("registry", "add", f"sums@1.{i}.0", tmp_path / f"bundle-{i}", "--why", "a test")
    words = ["promote", "sums@1.0.0", "--to", "production", "--policy", asked]
    code, found = told(*words)
    assert code == 5 and found["verdict"] == "ESCALATE" and "raytrain approve" in found["error"]["fix"]
    approve = ["approve", "sums@1.0.0", "--to", "production", "--role", "reviewer", "--policy", asked]
    code, found = told(*approve, "--key", "default")
    assert code == 5 and "does not speak for reviewer" in found["error"]["what"]
    code, found = told(*approve, "--key", "ada", "--why", "I read the flips")
    assert code == 0 and found["name"] == "ada"
    code, found = told(*words)
    assert code == 0 and found["moved"] and found["approvals"][0]["why"] == "I read the flips"
    code, found = told("rollback", "sums")
    assert code == 5 and "no version before" in found["error"]["what"]
    later = ["promote", "sums@1.1.0", "--to", "production", "--policy", asked, "--override"]
    assert told(*later)[0] == 2
    assert told(*later, "--role", "on-call")[1]["error"]["what"] == "an override needs a reason"
    insisted = [*map(str, later), "--role", "on-call", "--why", "it is on fire"]
    code, found = told(*insisted, "--dry-run")
    assert code == 0 and found["override"]["who"] == "default" and found["released"] and not found["moved"]
    assert told(*insisted, "--dry-run", "--key", "nobody")[0] == 2
    assert run([*insisted, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "ESCALATE would be set aside by default" in said.err and "would become production" in said.out
    code, found = told(*[one for one in insisted if one != "--override"])
    assert code == 2 and found["error"]["what"] == "--role on-call is for nothing here"
    assert run(insisted) == 0
    said = capsys.readouterr()
    assert "OVERRIDE: ESCALATE was set aside by default as on-call: it is on fire" in said.err
    assert "ESCALATE, set aside: sums@" in said.out
    assert "OVERRIDE of ESCALATE" in told("registry", "log", "sums")[1]["entries"][-1]["why"]
    code, found = told("rollback", "sums", "--rehearse")
    assert (
        code == 0 and not found["moved"] and found["after"] == "1.0.0" and set(found["seconds"]) >= {"verify"}
    )
    assert run(["adapter", "rollback", "sums", "--why", "it was not"]) == 0
    out = capsys.readouterr().out
    assert (
        "sums@production is 1.0.0 now" in out
        and "; no model was built of them (--service or --load does)" in out
    )
    other = ["promote", "sums@1.1.0", "--to", "production"]
    code, found = told(*other)
    assert code == 5 and "under another policy than default 1" in found["error"]["what"]
    changing = [*other, "--change-policy", "--role", "on-call", "--why", "we left"]
    code, found = told(*changing, "--dry-run")
    assert code == 5 and found["verdict"] == "NO-GO" and found["policy_change"]["title"] == "team 1"
    assert run(changing) == 5
    assert "POLICY CHANGED from team 1" in capsys.readouterr().err
    code, found = told("promote", "sums@1.0.0", "--to", "live", "--policy", asked)
    assert code == 5 and "lets nothing into" in found["error"]["what"]
    next((tmp_path / "home" / "keys").glob("default-*.pem")).chmod(0o640)
    for drill in ((), ("--rehearse",)):
        code, found = told("rollback", "sums", "--to", "1.1.0", *drill)
        assert code == 5 and "can be read by others" in found["error"]["what"]
        code, found = told("rollback", "sums", "--to", "1.1.0", "--key", "nobody", *drill)
        assert code == 2 and "nobody" in found["error"]["what"]


def released_adapter(folder: Path, tiny_llama: Path, *, factor: float) -> Path:
    """A bundle whose adapter can be asked: no change to its base model, or one that spoils every answer."""
    base = resolve_base_model(ModelSection(base_model=str(tiny_llama)), Location(str(folder.parent)))
    trained = Trained(folder.name, base_model=base.digest, base_reference=str(tiny_llama))
    training = {"base_model": str(tiny_llama), "base_digest": base.digest, "model": {"task": "causal_lm"}}
    make_release(folder, trained, documents={"adapter/training.json": training})
    aside = folder.with_name(f"{folder.name}-weights")
    write_adapter(aside, layers=2, module="o_proj")
    weights = load_file(aside / "adapter_model.safetensors")
    noise = np.random.default_rng(0)
    spoiled = {
        name: one + (factor * noise.normal(size=one.shape)).astype(one.dtype) for name, one in weights.items()
    }
    was = open_artifact(Location(str(folder)))
    with ArtifactWriter(Location(str(folder)), kind="bundle", parents=was.manifest.parents) as writer:
        for name in was.manifest.files:
            place = writer.path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((folder / name).read_bytes())
        config = (aside / "adapter_config.json").read_bytes()
        (writer.path / "adapter" / "adapter_config.json").write_bytes(config)
        save_file(spoiled, writer.path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
        writer.commit(was.manifest.provenance, replace=True)
    return folder


@pytest.mark.slow
def test_who_only_judges_needs_public_keys_alone(told: Told, tmp_path: Path) -> None:
    """As docs/gate.md has it on GitHub: ring.json from the base branch, and no key that signs."""
    evidence = Evidence(tmp_path / "evidence").write()
    make_release(tmp_path / "bundle", Trained())
    told("keys", "generate")
    told("adapter", "deploy", tmp_path / "bundle", "--name", "sums", "--to", "dev")
    public = tmp_path / "base" / "keys"
    public.mkdir(parents=True)
    ring = (tmp_path / "home" / "keys" / "ring.json").read_bytes()
    (public / "ring.json").write_bytes(ring)
    shutil.move(tmp_path / "home" / "keys", tmp_path / "elsewhere")
    assert told("registry", "audit", "--ring", public)[0] == 0
    words = ["promote", "sums@1.0.0", "--to", "production", "--ring", public]
    code, found = told(*words, *evidence_options(evidence), "--dry-run")
    assert code == 0 and found["verdict"] == "GO" and not found["moved"]
    assert told(*words, "--dry-run")[0] == 5
    code, found = told(*words, *evidence_options(evidence))
    assert code == 2 and "private half" in found["error"]["what"]
    assert [one.name for one in public.iterdir()] == ["ring.json"]


@pytest.mark.slow
def test_an_adapter_is_tested_against_production_and_its_golden_set(
    told: Told, tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told("keys", "generate")
    good, other = (
        released_adapter(tmp_path / name, tiny_llama, factor=f) for name, f in (("good", 0.0), ("bad", 9.0))
    )
    lax = tmp_path / "gate.yaml"
    lax.write_text("policy: lax\ntargets: [{to: production, reports: [], documents: []}]\n")
    code, found = told("adapter", "deploy", good, "--name", "sums", "--to", "production", "--policy", lax)
    assert code == 0 and found["moved"], found
    sums = write_suite(
        tmp_path, "sums", rows=[{**row, "answer": "x"} for row in SUMS], scorer={"name": "exact_match"}
    )
    code, found = told("adapter", "test", good, "--name", "sums", "--suite", sums)
    assert code == 5 and "Nothing can differ" in found["headline"]
    code, found = told("adapter", "test", other, "--name", "sums", "--suite", sums)
    assert code == 5 and found["recommendation"] != "Promote" and found["against"] == "sums@1.0.0"
    freeze = ["baseline", "freeze", good / "adapter", "--suite"]
    _, found = told(*freeze, write_suite(tmp_path / "draft", "sums"), "--name", "draft")
    (answers,) = open_evaluation(Location(found["baseline"])).records.values()
    rows = [{**row, "answer": one.output} for row, one in zip(SUMS, answers, strict=True)]
    own_words = write_suite(tmp_path, "words", rows, like="sums", scorer={"name": "exact_match"})
    assert told(*freeze, own_words, "--name", "golden")[0] == 0
    deploy = ["adapter", "deploy", other, "--name", "worse", "--to", "production", "--policy", lax]
    assert told(*deploy)[0] == 0
    code, found = told("adapter", "test", good, "--name", "worse", "--suite", own_words)
    assert code == 0 and found["recommendation"] == "Promote" and found["against"] == "worse@1.0.0", found
    code, found = told("check", "golden", "sums@production")
    assert code == 0 and found["passed"] and found["subject"] == Trained("good").subject
    assert (Path(found["report"]) / "items.jsonl").read_text() == ""
    first = read_manifest(Location(found["report"])).provenance
    assert told("check", "golden", "sums@production")[1]["report"] == found["report"], (
        "nobody was asked again"
    )
    time.sleep(1.1)  # times are of whole seconds
    _, again = told("check", "golden", "sums@production", "--fresh")
    newest = read_manifest(Location(again["report"])).provenance
    assert again["digest"] == found["digest"] and again["report"] != found["report"]
    assert newest["evaluated_at"] > first["evaluated_at"] and newest["created_at"] > first["created_at"]
    code, found = told("check", "golden", other, "--max-lost", "0")
    assert code == 5 and found["num_lost"] > 0 and "has drifted" in found["error"]["what"]
    lost = (Path(found["report"]) / "items.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["after"] < json.loads(line)["before"] for line in lost) == found["num_lost"]
    assert run(["check", "golden", str(other), "--max-lost", "1"]) == 0
    assert "check golden PASSED" in capsys.readouterr().out
    code, found = told("check", "golden", "sums@production", "--baseline", "nowhere")
    assert code == 2 and "is no baseline" in found["error"]["what"]
    for command in (["check", "golden"], ["adapter", "test", "--name", "sums", "--suite", sums]):
        code, found = told(*command, "summs@1.0.0")
        assert code == 5 and found["error"]["what"] == "summs is not in the registry"
        assert found["error"]["fix"] == "did you mean sums?"
    assert told("adapter", "test", other, "--name", "nothing", "--suite", sums)[0] == 5


def test_what_is_no_bundle_is_not_deployed_and_leaves_nothing(told: Told, tmp_path: Path) -> None:
    with ArtifactWriter(Location(str(tmp_path / "adapter")), kind="adapter") as writer:
        write_adapter(writer.path)
        writer.commit({})
    assert told("keys", "generate")[0] == 0
    code, found = told("adapter", "deploy", tmp_path / "adapter", "--name", "sums", "--to", "dev")
    assert code == 5 and "its kind is adapter" in found["error"]["why"]
    assert not (tmp_path / "adapter.sig").exists() and told("registry", "list")[1]["names"] == []


def test_an_alias_that_names_nothing_is_told_and_the_registry_has_the_commands_too(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_release(tmp_path / "bundle", Trained())
    assert told("keys", "generate")[0] == 0
    told("adapter", "deploy", tmp_path / "bundle", "--name", "sums", "--to", "dev")
    assert run(["registry", "promote", "sums@1.0.0", "--to", "staging"]) == 5
    assert "does not become staging, which names no version yet" in capsys.readouterr().out
    code, found = told("registry", "rollback", "sums", "--rehearse")
    assert code in (2, 5) and "sums" in found["error"]["what"]
    code, found = told("registry", "show", "sums@dev")
    assert code == 2 and found["error"]["fix"] == "give the name without its version"

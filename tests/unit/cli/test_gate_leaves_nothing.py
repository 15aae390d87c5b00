"""What cannot be done is told before a version is signed, registered or moved; what was done is told in any case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Told
from releases import Trained, make_release, release

from raytrain.cli.promote import tell_promotion
from raytrain.errors import StorageError
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.policy import load_policy
from raytrain.release.gate.promote import Desk, Promotion, Wanted, promote
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


@pytest.fixture
def lax(tmp_path: Path) -> Path:
    place = tmp_path / "gate.yaml"
    place.write_text("policy: lax\ntargets: [{to: production, reports: [], documents: []}]\n")
    return place


@pytest.fixture
def bundle(told: Told, tmp_path: Path) -> Path:
    assert told("keys", "generate")[0] == 0
    make_release(tmp_path / "bundle", Trained())
    return tmp_path / "bundle"


def registered(told: Told) -> list[str]:
    return [one["name"] for one in told("registry", "list")[1]["names"]]


def is_signed(bundle: Path) -> bool:
    return bundle.with_name(f"{bundle.name}.sig").exists()


@pytest.mark.parametrize("name", ["file/checklist.md", f"{'x' * 245}.md"], ids=["no folder", "too long"])
def test_no_alias_moves_where_the_checklist_cannot_be_written(
    name: str, told: Told, bundle: Path, lax: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    told("sign", bundle)
    told("registry", "add", "sums@1.0.0", bundle, "--why", "a test")
    words = ["promote", "sums@1.0.0", "--to", "production", "--policy", lax]
    code, found = told(*words, "--checklist", tmp_path / name)
    assert code == 4 and found["error"]["kind"] == "storage", found
    assert told("adapter", "versions", "sums")[1]["aliases"] == {}
    code, found = told(*words, "--checklist", tmp_path / "new" / "checklist.md")
    assert code == 0 and found["moved"]
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["checklist.md"]


def moved(folder: Path, lax: Path) -> Promotion:
    ring = KeyRing(folder / "keys")
    key = ring.generate("release")
    registry = Registry(folder / "registry")
    release(registry, ring, folder / "bundle", Trained(), "1.0.0")
    desk = Desk(registry, ring, Shelves(Location(str(folder / "storage"))))
    wanted = Wanted("sums@1.0.0", "production", load_policy(lax))
    return promote(desk, wanted, ring.signing_key(key.name))


def test_the_verdict_is_told_where_the_checklist_fails_after_the_move(
    lax: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = moved(tmp_path, lax)
    assert done.moved
    place = lax / "checklist.md"
    assert tell_promotion(done, place, as_json=False) == StorageError.exit_code
    said = capsys.readouterr()
    assert "GO: sums@1.0.0 is production now" in said.out and "error: cannot write" in said.err


def test_json_has_the_verdict_and_the_error_in_one_object(
    lax: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = moved(tmp_path, lax)
    capsys.readouterr()
    assert tell_promotion(done, lax / "checklist.md", as_json=True) == StorageError.exit_code
    found = json.loads(capsys.readouterr().out)
    assert found["moved"] and found["verdict"] == "GO" and found["error"]["kind"] == "storage"


def test_a_deployment_writes_its_checklist_over_no_policy(told: Told, bundle: Path, lax: Path) -> None:
    before = lax.read_text()
    words = ["adapter", "deploy", bundle, "--name", "sums", "--to", "production", "--policy", lax]
    code, found = told(*words, "--checklist", lax)
    assert code == 2 and "is read and would be written" in found["error"]["what"]
    assert lax.read_text() == before and not is_signed(bundle) and registered(told) == []


def test_evidence_that_cannot_be_read_leaves_no_version(
    told: Told, bundle: Path, lax: Path, tmp_path: Path
) -> None:
    words = ["adapter", "deploy", bundle, "--name", "sums", "--to", "production", "--policy", lax]
    code, found = told(*words, "--evidence", tmp_path / "nowhere")
    assert code == 2 and "is no evidence" in found["error"]["what"]
    code, found = told(*words, "--evidence", bundle)
    assert code == 2 and "it is a bundle" in found["error"]["why"]
    assert not is_signed(bundle) and registered(told) == []


def test_another_policy_and_a_key_that_may_not_leave_no_version(
    told: Told, bundle: Path, lax: Path, tmp_path: Path
) -> None:
    words = ["--name", "sums", "--to", "production", "--policy"]
    assert told("adapter", "deploy", bundle, *words, lax)[0] == 0
    make_release(tmp_path / "next", Trained(dataset="sha256:next"))
    other = tmp_path / "other.yaml"
    other.write_text(lax.read_text().replace("lax", "other"))
    code, found = told("adapter", "deploy", tmp_path / "next", *words, other)
    assert code == 5 and "under another policy" in found["error"]["what"]
    roles = "\nroles: [{role: lead, keys: [ada]}]\n"
    other.write_text(lax.read_text().replace("documents: []", "documents: [], promoted_by: [lead]") + roles)
    code, found = told("adapter", "deploy", tmp_path / "next", *words, other)
    assert code == 5 and "may not let anything into production" in found["error"]["what"]
    assert not is_signed(tmp_path / "next")
    assert [one["version"] for one in told("adapter", "versions", "sums")[1]["versions"]] == ["1.0.0"]

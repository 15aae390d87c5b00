"""What was decided and approved about a version goes where it goes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from gates import promoted, team_policy, wanted
from releases import Evidence

from raytrain.cli.main import run
from raytrain.errors import IntegrityError
from raytrain.release.gate.about import about_bundle
from raytrain.release.gate.approvals import statement_of, write_approval
from raytrain.release.gate.promote import Desk
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import SHELVES, shelf_of
from raytrain.release.registry.transfer import export_version, import_version

pytestmark = pytest.mark.whole


@pytest.fixture
def exported(desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path) -> Path:
    """A version that ada has approved, and that was promoted."""
    policy = team_policy(approvals=[{"role": "reviewer"}])
    about = about_bundle(desk.registry.verified("sums@1.0.0", reviewers).artifact)
    key = reviewers.signing_key("ada")
    statement = statement_of("sums", about, policy, "production", "reviewer", key, "looked at it")
    write_approval(shelf_of(desk.registry, "sums", "approvals"), statement, key, reviewers)
    assert promoted(desk, wanted(evidence, policy)).moved
    export_version(desk.registry, "sums@1.0.0", tmp_path / "sums.tar", reviewers)
    return tmp_path / "sums.tar"


def names_of(registry: Registry) -> dict[str, list[str]]:
    bundle = registry.find("sums@1.0.0").digest
    return {
        kind: sorted(one.name for one in shelf_of(registry, "sums", kind).about(bundle)) for kind in SHELVES
    }


def test_records_and_approvals_come_along(
    desk: Desk, exported: Path, reviewers: KeyRing, tmp_path: Path
) -> None:
    goal = Registry(tmp_path / "goal")
    import_version(goal, exported, reviewers, why="for the plant")
    assert names_of(goal) == names_of(desk.registry)
    assert [len(found) for found in names_of(goal).values()] == [1, 1]
    ((record,),) = [names_of(goal)["records"]]
    assert shelf_of(goal, "sums", "records").get(f"sha256:{record}", reviewers).key.name == "release"
    (entry,) = goal.entries("sums")
    assert entry.details["imported"]["proof_left_out"] == []


def test_what_nobody_there_knows_is_left_out_and_told(
    exported: Path, reviewers: KeyRing, tmp_path: Path
) -> None:
    (ada,) = [one for one in reviewers.known() if one.name == "ada"]
    reviewers.revoke(ada.id, "a laptop was lost")
    goal = Registry(tmp_path / "goal")
    import_version(goal, exported, reviewers, why="for the plant")
    assert names_of(goal)["approvals"] == [] and len(names_of(goal)["records"]) == 1
    ((told,),) = [goal.entries("sums")[0].details["imported"]["proof_left_out"]]
    assert told.startswith("approvals/") and "a laptop was lost" in told


def test_what_does_not_verify_is_not_exported_and_told(
    desk: Desk, exported: Path, reviewers: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, goal = desk.registry.store, Registry(tmp_path / "goal")
    record, approval = names_of(desk.registry)["records"][0], names_of(desk.registry)["approvals"][0]
    Path(f"{store.bundle_place('_approvals.sums', approval)}.sig").write_text("{}")
    place = ("--registry", store.place, "--ring", str(reviewers.folder))
    file = str(tmp_path / "again.tar")
    assert run(["registry", "export", "sums@1.0.0", file, *place, "--json"]) == 0
    (left,) = json.loads(capsys.readouterr().out)["proof_left_out"]
    assert left.startswith(f"approvals/{approval}: ") and "no signature" in left
    assert run(["registry", "export", "sums@1.0.0", file, *place, "--replace"]) == 0
    assert f"left out, it does not verify: approvals/{approval}" in capsys.readouterr().out
    import_version(goal, Path(file), reviewers, why="a test")
    assert names_of(goal) == {"approvals": [], "records": [record]}


@pytest.mark.parametrize("suffix", ["record.json", "checklist.md", "statement.json"])
def test_proof_that_was_changed_is_not_taken(
    suffix: str, exported: Path, reviewers: KeyRing, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tar"
    num_changed = 0
    with tarfile.open(exported) as source, tarfile.open(bad, "w") as target:
        for member in source:
            stream = source.extractfile(member)
            assert stream is not None
            content = stream.read()
            if member.name.startswith("proof/") and member.name.endswith(suffix):
                content, num_changed = content.replace(b"e", b"a", 1), num_changed + 1
            one = tarfile.TarInfo(member.name)
            one.size = len(content)
            target.addfile(one, io.BytesIO(content))
    assert num_changed == 1
    goal = Registry(tmp_path / "goal")
    with pytest.raises(IntegrityError, match=r"bad\.tar is not taken") as caught:
        import_version(goal, bad, reviewers, why="a test")
    assert suffix in caught.value.why and goal.names() == []

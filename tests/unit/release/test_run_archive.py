"""A run under one signature: what is in it, and that what was changed is named, in the copy and where it lay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import Told

from raytrain.runs.records import Records, open_records
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.home import run_folder
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


def artifact(folder: Path, kind: str, content: str, **parents: str) -> Artifact:
    with ArtifactWriter(Location(str(folder)), kind=kind, parents=parents) as writer:
        (writer.path / "content.bin").write_text(content)
        return writer.commit()


def note(records: Records, run_id: str, role: str, one: Artifact) -> None:
    parents = one.manifest.parents
    records.add_artifact(run_id, role, "written", one.kind, one.digest, str(one.location), parents)


@pytest.fixture
def run_id(tmp_path: Path, told: Told) -> str:
    """A run that has ended: two checkpoints, of which one made room, a result, its evaluation and a decision on that,
    and a bundle of it, which is signed by itself."""
    records = open_records()
    records.create_run("tiny-1", kind="train", name="tiny", config={"a": 1})
    logs = run_folder("tiny-1")
    (logs / "log.txt").write_text("step 1: train/loss 3.2\nstep 2: train/loss 3.0\n")
    (logs / "metrics.jsonl").write_text('{"global_step": 1}\n')
    for step in (1, 2):
        note(
            records, "tiny-1", "checkpoint", artifact(tmp_path / f"step-{step}", "checkpoint", f"step {step}")
        )
    result = artifact(tmp_path / "result", "adapter", "weights")
    note(records, "tiny-1", "model", result)
    records.set_state("tiny-1", "succeeded")
    records.create_run("eval-1", kind="evaluate", name="eval", config={})
    evaluation = artifact(tmp_path / "evaluation", "evaluation", "scores", adapter=result.digest)
    note(records, "eval-1", "evaluation", evaluation)
    decision = artifact(tmp_path / "decision", "decision", "GO", candidate=evaluation.digest)
    records.know_artifact("decision", decision.digest, str(decision.location), decision.manifest.parents)
    bundle = artifact(tmp_path / "bundle", "bundle", "all", subject=result.digest)
    records.know_artifact("bundle", bundle.digest, str(bundle.location), bundle.manifest.parents)
    shutil.rmtree(tmp_path / "step-1")
    records.close()
    assert told("keys", "generate")[0] == 0
    return "tiny-1"


def test_log_checkpoints_result_and_reports_are_one_artifact(told: Told, run_id: str, tmp_path: Path) -> None:
    code, found = told("sign", run_id)
    assert code == 0 and found["run"] == run_id, found
    (left,) = found["left_out"]
    assert left.startswith("checkpoint ") and "not there any more" in left
    folder = Path(found["folder"])
    assert (folder / "log" / "log.txt").read_text().count("\n") == 2
    kinds = {one.name: [part.name.rpartition("-")[0] for part in one.iterdir()] for one in folder.iterdir()
             if one.is_dir() and one.name != "log"}  # fmt: skip
    assert kinds == {
        "checkpoint": ["step-2"], "adapter": ["result"], "evaluation": ["evaluation"], "decision": ["decision"]
    }  # fmt: skip
    code, found = told("verify", run_id)
    assert code == 0 and found["kind"] == "run"
    code, found = told("registry", "add", "runs", folder, "--why", "for the auditors")
    assert code == 0 and told("registry", "verify", "runs@1.0.0")[0] == 0


@pytest.mark.parametrize("name", ["log/log.txt", "checkpoint/*/content.bin", "decision/*/content.bin"])
def test_what_is_changed_in_the_signed_copy_is_named(told: Told, run_id: str, name: str) -> None:
    folder = Path(told("sign", run_id)[1]["folder"])
    (file,) = folder.glob(name)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.unlink()
    file.write_bytes(content)
    code, found = told("verify", run_id)
    assert code == 5 and file.relative_to(folder).as_posix() in json.dumps(found["error"]), found


@pytest.mark.parametrize(
    "place", ["home/runs/tiny-1/log.txt", "step-2/content.bin", "evaluation/content.bin"]
)
def test_what_is_changed_where_the_run_left_it_is_named(
    told: Told, run_id: str, tmp_path: Path, place: str
) -> None:
    assert told("sign", run_id)[0] == 0
    file = tmp_path / place
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content.replace(b"e", b"f", 1))
    code, found = told("verify", run_id)
    assert code == 5 and Path(place).name in found["error"]["why"], found
    assert "is not as it was signed" in found["error"]["what"]
    file.write_bytes(content)
    assert told("verify", run_id)[0] == 0


def test_one_that_runs_or_is_damaged_is_not_signed(told: Told, run_id: str, tmp_path: Path) -> None:
    records = open_records()
    records.create_run("busy-1", kind="train", name="busy", config={})
    records.close()
    code, found = told("sign", "busy-1")
    assert code == 2 and "wait for its end" in found["error"]["fix"]
    (tmp_path / "step-2" / "content.bin").write_text("x")
    code, found = told("sign", run_id)
    assert code == 5 and "step-2" in json.dumps(found["error"])
    assert told("verify", run_id)[0] == 2 and not (tmp_path / "home" / "signed_runs").exists()
    assert told("sign", "nobody")[0] == 2

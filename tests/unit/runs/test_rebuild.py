from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from raytrain.runs.ownership import Owner
from raytrain.runs.rebuild import rebuild
from raytrain.runs.records import Records, open_records
from raytrain.runs.section import TrackingSection
from raytrain.runs.sinks.build import build_sinks
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance


def train(records: Records, storage: Location, run_id: str = "demo-1a2b") -> None:
    """Leave behind what a run does: records, folder, a checkpoint and a result."""
    config = {"name": "demo", "train": {"learning_rate": 1e-4}, "note": "größer"}
    run = records.create_run(
        run_id, kind="train", name="demo", config=config, storage_uri=str(storage), max_steps=30
    )
    records.claim_run(run_id, Owner.current())
    sinks = build_sinks(TrackingSection(tensorboard=False), run, records, pytest.fail)
    sinks.open()
    for step in range(1, 31):
        sinks.write(step, 1.7e9 + step, {"train/loss": math.nan if step == 3 else 1 / step})
    sinks.close("succeeded")
    dataset = "sha256:" + "d" * 64
    for name, kind, role in (
        ("checkpoints/step-00000020", "checkpoint", "checkpoint"),
        ("adapter", "adapter", "model"),
    ):
        place = Location(f"{storage}/runs/{run_id}/{name}")
        with ArtifactWriter(place, kind=kind, parents={"dataset": dataset}) as writer:
            (writer.path / "weights").write_text(name)
            artifact = writer.commit(collect_provenance(config=config))
        records.add_artifact(
            run_id, role, "written", kind, artifact.digest, str(place), artifact.manifest.parents
        )
    records.heartbeat(run_id, Owner.current(), global_step=30)
    records.set_state(run_id, "succeeded", global_step=30)


def delete_database(records: Records, home: Path) -> Records:
    records.close()
    for file in home.glob("raytrain.db*"):
        file.unlink()
    return open_records()


def test_a_lost_database_comes_back_the_same(home: Path, tmp_path: Path) -> None:
    storage = Location.parse(tmp_path / "storage")
    before = open_records()
    train(before, storage)
    run, metrics, events = (
        before.get_run("demo-1a2b"),
        before.metrics("demo-1a2b"),
        before.events("demo-1a2b"),
    )
    artifacts, lineage = (
        before.artifacts("demo-1a2b"),
        before.lineage(before.artifacts("demo-1a2b")[-1].digest),
    )
    after = delete_database(before, home)
    result = rebuild(after, storage)
    assert (result.runs, result.num_metric_rows, result.skipped) == (["demo-1a2b"], 30, {})
    assert dataclasses.replace(after.get_run("demo-1a2b"), heartbeat_at=None) == dataclasses.replace(
        run, heartbeat_at=None
    )
    assert repr(after.metrics("demo-1a2b")) == repr(metrics), "repr, for NaN is not equal to itself"
    assert after.events("demo-1a2b") == events
    assert after.artifacts("demo-1a2b") == artifacts
    assert after.lineage(artifacts[-1].digest) == lineage


def test_again_adds_nothing(home: Path, tmp_path: Path) -> None:
    storage = Location.parse(tmp_path / "storage")
    records = open_records()
    train(records, storage)
    result = rebuild(records, storage)
    assert (result.runs, result.num_known_runs, result.num_artifacts) == ([], 1, 0)


def test_a_run_of_another_machine_is_told_by_its_artifacts(home: Path, tmp_path: Path) -> None:
    storage = Location.parse(tmp_path / "storage")
    train(open_records(), storage)
    records = delete_database(open_records(), home)
    (home / "runs").rename(home / "elsewhere")
    rebuild(records, storage)
    run = records.get_run("demo-1a2b")
    assert (run.state, run.name, run.config["note"]) == ("succeeded", "demo", "größer")
    assert records.artifact_of(run.id) == str(storage / "runs" / run.id / "adapter")
    assert [use.role for use in records.artifacts(run.id)].count("checkpoint") == 1


def test_what_cannot_be_read_is_named_and_passed_over(home: Path, tmp_path: Path) -> None:
    storage = Location.parse(tmp_path / "storage")
    records = open_records()
    train(records, storage)
    train(records, storage, "good-2")
    (home / "runs" / "demo-1a2b" / "run.json").write_text("{half")
    manifest = storage.path / "runs" / "demo-1a2b" / "adapter" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "kind": "changed"}))
    result = rebuild(delete_database(records, home), storage)
    assert "good-2" in result.runs
    assert sorted(Path(place).name for place in result.skipped) == ["adapter", "demo-1a2b"]


def test_a_run_that_was_killed_is_failed_again(home: Path, tmp_path: Path) -> None:
    records = open_records()
    records.create_run("demo-1", kind="train", name="demo", config={})
    records.claim_run("demo-1", Owner(Owner.current().host, 2**22 + 1, 1.0))
    with (home / "runs" / "demo-1" / "metrics.jsonl").open("w") as stream:
        stream.write(
            '{"global_step": 7, "time": 1.0, "metrics": {"train/loss": 2.0}}\n{"global_step": 8, "ti'
        )
    after = delete_database(records, home)
    rebuild(after, Location.parse(tmp_path / "storage"))
    run = after.get_run("demo-1")
    assert (run.label, run.global_step, run.is_resumable) == ("failed (owner gone)", 7, True)

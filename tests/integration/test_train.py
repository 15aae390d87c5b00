"""Two workers from the first step to the last: what a run leaves behind, and how it is looked at."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pytest
from bench import BIN, assert_every_row_once_per_epoch, run_id_of
from conftest import Straight

from raytrain.data.dataset import read_split
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location


def test_ends_with_its_result_as_one_object(straight: Straight) -> None:
    found = straight.outcome.object
    assert found.keys() == {"run_id", "state", "artifact", "digest", "global_step", "metrics"}
    assert (found["run_id"], found["state"]) == (straight.run_id, "succeeded")
    assert found["global_step"] == max(straight.bench.steps_told(straight.run_id))
    assert {"train/loss", "eval/loss", "train/tokens_seen"} <= found["metrics"].keys()


def test_every_row_once_per_epoch_over_both_workers(straight: Straight) -> None:
    seen = straight.bench.seen()
    assert len({line["pid"] for line in seen}) == 2
    assert_every_row_once_per_epoch(seen, num_epochs=3, world_size=2)


def test_peft_alone_loads_the_adapter(straight: Straight, tiny_llama: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = straight.outcome.object["artifact"]
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tokens = torch.tensor([[5, 6, 7, 8]])
    before = base(tokens).logits
    adapted = PeftModel.from_pretrained(base, place)
    assert not torch.allclose(before, adapted(tokens).logits)
    assert AutoTokenizer.from_pretrained(place).chat_template


def test_lineage_leads_from_adapter_to_rows_and_base_model(straight: Straight) -> None:
    shown = straight.bench.show(straight.run_id)
    lineage = shown["lineage"]
    assert lineage["digest"] == straight.digest
    assert lineage["written_by"] == straight.run_id
    assert {parent["role"] for parent in lineage["parents"]} == {"base_model", "dataset", "tokens"}
    kinds = {parent["role"]: parent["kind"] for parent in lineage["parents"]}
    assert kinds["dataset"] == "dataset"
    dataset = next(use for use in shown["artifacts"] if use["role"] == "dataset")
    assert open_artifact(Location(dataset["uri"]), kind="dataset").digest == dataset["digest"]
    artifact = open_artifact(Location(straight.outcome.object["artifact"]), kind="adapter")
    assert artifact.digest == straight.digest
    assert artifact.manifest.provenance["config"]["train"]["learning_rate"] == 1e-2


def test_a_checkpoint_is_signed_and_a_changed_one_is_named(straight: Straight, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(straight.bench.checkpoints(straight.run_id)[-1], checkpoint)
    assert straight.bench.run("keys", "generate").code == 0
    for command in ("sign", "verify"):
        outcome = straight.bench.run(command, checkpoint)
        assert outcome.code == 0, outcome.told()
    state = bytearray((checkpoint / "optimizer.safetensors").read_bytes())
    state[-1] ^= 1
    (checkpoint / "optimizer.safetensors").write_bytes(state)
    outcome = straight.bench.run("verify", checkpoint)
    assert outcome.code == 5 and "optimizer.safetensors" in outcome.stderr, outcome.told()


def test_a_run_is_signed_whole_and_what_is_changed_in_it_is_named(straight: Straight, tmp_path: Path) -> None:
    """Log, series, checkpoints and result under one signature, which OpenSSF's own command line verifies too."""
    bench, run_id = straight.bench, straight.run_id
    for command in (("keys", "generate", "runs"), ("sign", run_id, "--key", "runs")):
        outcome = bench.run(*command, "--json")
        assert outcome.code == 0, outcome.told()
    folder = Path(outcome.object["folder"])
    assert bench.run("verify", run_id).code == 0
    names = [one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()]
    assert {"log/log.txt", "log/metrics.jsonl", "log/events.jsonl", "log/recipe.yaml"} <= set(names)
    weights = [one for one in names if one.startswith("checkpoint/") and one.endswith(".safetensors")]
    assert weights and any(one.startswith("adapter/") for one in names)
    keys = bench.run("keys", "list", "--json").object["keys"]
    key = next(one["id"] for one in keys if one["name"] == "runs")
    (tmp_path / "runs.pub").write_text(bench.run("keys", "show", key, "--json").object["pem"])
    stock = [str(BIN / "model_signing"), "verify", "key", str(folder), "--signature", f"{folder}.sig"]
    stock += ["--public_key", str(tmp_path / "runs.pub")]
    assert subprocess.run(stock, capture_output=True, check=False).returncode == 0
    for name in ("log/log.txt", weights[0]):
        file, before = folder / name, (folder / name).read_bytes()
        file.unlink()  # a copy: what it is linked with stays
        file.write_bytes(before.replace(b"0", b"1", 1) if name.endswith(".txt") else before[:-1] + b"?")
        outcome = bench.run("verify", run_id)
        assert outcome.code == 5 and name in outcome.stderr, outcome.told()
        done = subprocess.run(stock, capture_output=True, text=True, check=False)
        assert done.returncode != 0 and name in done.stdout + done.stderr
        file.write_bytes(before)
    assert bench.run("verify", run_id).code == 0


def test_an_export_asks_rows_that_training_held_out(straight: Straight, tmp_path: Path) -> None:
    outcome = straight.bench.run("export", straight.run_id, "--out", tmp_path / "bundle", "--json")
    assert outcome.code == 0, outcome.told()
    check = outcome.object["check"]
    assert check["passed"] and not check["notes"], check
    asked = [one["id"].removeprefix("held-out row ") for one in check["prompts"] if "held-out" in one["id"]]
    dataset = next(
        use for use in straight.bench.show(straight.run_id)["artifacts"] if use["role"] == "dataset"
    )
    splits = open_artifact(Location(dataset["uri"]), kind="dataset")
    held_out = {row[:12] for row in read_split(splits, "val").column("row_id").to_pylist()}
    seen = {row[:12] for row in read_split(splits, "train").column("row_id").to_pylist()}
    assert asked and held_out.issuperset(asked) and seen.isdisjoint(asked)


def test_checkpoints_are_whole_and_known_to_ray(straight: Straight) -> None:
    import json

    checkpoints = straight.bench.checkpoints(straight.run_id)
    last = straight.outcome.object["global_step"]
    assert checkpoints[-1].name == f"step-{last:08d}"
    for checkpoint in checkpoints:
        assert open_artifact(Location(str(checkpoint)), kind="checkpoint")
    (ray_state,) = checkpoints[0].parent.parent.glob("checkpoint_manager_snapshot.json")
    registered = json.dumps(json.loads(ray_state.read_text()))
    assert checkpoints[-1].name in registered, registered[:500]


def test_metrics_agree_in_all_three_places(straight: Straight) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bench, run_id = straight.bench, straight.run_id
    in_file = {
        line["global_step"]: line["metrics"]["train/loss"]
        for line in bench.metric_lines(run_id)
        if "train/loss" in line["metrics"]
    }
    told = bench.run("runs", "metrics", run_id, "--key", "train/loss", "--json").object["metrics"]
    in_database = {point["global_step"]: point["value"] for point in told["train/loss"]}
    board = EventAccumulator(str(bench.run_folder(run_id) / "tensorboard"))
    board.Reload()
    on_board = {scalar.step: scalar.value for scalar in board.Scalars("train/loss")}
    assert list(in_file) == list(range(1, straight.outcome.object["global_step"] + 1))
    assert in_database == in_file
    assert on_board == pytest.approx(in_file, rel=1e-6)
    assert all(math.isfinite(value) for value in in_file.values())


def test_the_same_command_again_answers_at_once(straight: Straight, recipe: Path) -> None:
    before = straight.bench.events(straight.run_id, "worker")
    again = straight.bench.train(recipe)
    assert again.code == 0, again.told()
    for key in ("run_id", "state", "artifact", "digest", "global_step"):
        assert again.object[key] == straight.outcome.object[key]
    assert before == straight.bench.events(straight.run_id, "worker") != [], "no worker was started"


def test_runs_are_listed_and_compared(straight: Straight, recipe: Path, tmp_path: Path) -> None:
    bench, run_id = straight.bench, straight.run_id
    listed = bench.run("runs", "list", "--state", "succeeded", "--json").object["runs"]
    assert run_id in [run["id"] for run in listed]
    shown = bench.run("runs", "metrics", run_id, "--plot")
    assert shown.code == 0, shown.told()
    assert "train/loss" in shown.stdout
    assert run_id == run_id_of(recipe)

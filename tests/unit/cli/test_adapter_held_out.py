"""`raytrain adapter test` without a suite: both are asked the rows that the adapter's own training held out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import Told
from conftest_tasks import task_spec, train_task, write_jsonl

from raytrain.cli.main import run
from raytrain.data.dataset import read_split
from raytrain.release.bundle.description import Adapter, BaseModel, BundleDescription
from raytrain.runs.records import open_records
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_of

pytestmark = [pytest.mark.whole, pytest.mark.slow]

ROWS = [{"question": f"Add {i} and {i + 3}.", "answer": f"The sum of it is {2 * i + 3}."} for i in range(120)]


@dataclass(frozen=True)
class Team:
    """Version 1.0.0 of `sums` in production, one that learned more from the same rows, and where they learned."""

    adapter: Artifact
    dataset: Artifact


def trained(folder: Path, model: Path, max_steps: int, **data: Any) -> tuple[Artifact, Artifact]:
    """An adapter and its dataset, noted in the records as a run notes them."""
    spec = task_spec(
        "causal_lm",
        model,
        write_jsonl(folder.with_suffix(".jsonl"), ROWS),
        folder,
        adapter={"method": "lora", "lora_rank": 16, "lora_alpha": 64, "lora_dropout": 0.0},
        data={"val_fraction": 0.1, **data},
        train={"max_steps": max_steps, "learning_rate": 1e-2, "warmup_steps": 0},
    )
    done = train_task(spec)
    dataset = open_artifact(Location(str(done.assignment.dataset)), kind="dataset")
    records = open_records()
    records.create_run(
        folder.name, kind="train", name=folder.name, config={}, config_digest="-", storage_uri="-"
    )
    records.add_artifact(folder.name, "dataset", "read", "dataset", dataset.digest, str(dataset.location))
    records.close()
    return done.result(), dataset


def bundle_of(adapter: Artifact, folder: Path, model: Path) -> Path:
    parents = {**adapter.manifest.parents, "subject": adapter.digest}
    base = BaseModel(str(model), None, parents["base_model"], None, {})
    of = Adapter("lora", 16, 64.0, ["q_proj"])
    described = BundleDescription(
        adapter.digest, "adapter", "causal_lm", "float32", base, of, digest_of("t"), None, ("adapter",)
    )
    with ArtifactWriter(Location(str(folder)), kind="bundle", parents=parents) as writer:
        described.write(writer.path)
        shutil.copytree(adapter.path, writer.path / "adapter")
        writer.commit({})
    return folder


@pytest.fixture
def team(told: Told, tmp_path: Path, tiny_llama: Path) -> Team:
    told("keys", "generate")
    serving, _ = trained(tmp_path / "first", tiny_llama, 1, split_salt="another", val_fraction=0.7)
    adapter, dataset = trained(tmp_path / "second", tiny_llama, 60, test_fraction=0.25)
    lax = tmp_path / "gate.yaml"
    lax.write_text("policy: lax\ntargets: [{to: production, reports: [], documents: []}]\n")
    bundle = bundle_of(serving, tmp_path / "bundle", tiny_llama)
    code, found = told("adapter", "deploy", bundle, "--name", "sums", "--to", "production", "--policy", lax)
    assert code == 0, found
    return Team(adapter, dataset)


def test_it_is_tested_on_rows_that_its_training_held_out(
    told: Told, tmp_path: Path, team: Team, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(
        "contract: small\nsuites: [{suite: '*', min_gain: 0.002, max_loss: 0.2}]\n"
        "overall: {min_gain: 0.002, margin: 0.2}\n"
    )
    words = ["--name", "sums", "--contract", str(small)]
    code, found = told("adapter", "test", team.adapter.path, *words)
    assert code == 0 and found["recommendation"] == "Promote" and found["against"] == "sums@1.0.0", found
    told_rows = found["held_out"]
    held_out = set(read_split(team.dataset, "test").column("row_id").to_pylist())
    assert told_rows["dataset"] == team.dataset.digest and told_rows["split"] == "test"
    assert told_rows["num_rows"] + told_rows["num_left_out"] == len(held_out)
    assert told_rows["num_left_out"] > 0, "the one in production learned from some of these rows"
    assert found["notes"] == []
    code, few = told("adapter", "test", team.adapter.path, *words, "--num-rows", "3")
    assert few["held_out"]["num_rows"] == 3
    other = bundle_of(team.adapter, tmp_path / "better", tiny_llama)
    code, again = told("adapter", "test", other, *words)
    assert code == 0 and again["held_out"] == told_rows, "a bundle leads to the same rows"
    assert run(["adapter", "test", str(other), *words]) == 0
    assert f"{told_rows['num_rows']} rows of the test split" in capsys.readouterr().out


def test_without_rows_to_ask_it_says_so_and_names_the_suite(
    told: Told, tmp_path: Path, team: Team, tiny_llama: Path
) -> None:
    none, _ = trained(tmp_path / "none", tiny_llama, 1, val_fraction=0.0)
    code, found = told("adapter", "test", none.path, "--name", "sums")
    assert code == 3 and "no held-out rows" in found["error"]["what"] and "--suite" in found["error"]["fix"]
    only_val, _ = trained(tmp_path / "val", tiny_llama, 1)
    code, found = told("adapter", "test", only_val.path, "--name", "sums")
    assert code == 5 and found["held_out"]["split"] == "val" and "checkpoint" in found["notes"][0], found
    shutil.rmtree(team.dataset.path)
    code, found = told("adapter", "test", team.adapter.path, "--name", "sums")
    assert code == 3 and "cannot be found" in found["error"]["what"] and "--suite" in found["error"]["fix"]

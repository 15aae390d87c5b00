"""What a trial begins with and what it is judged by: a donor's checkpoint, and the metrics of its run."""

from __future__ import annotations

import json

import pytest
from conftest_search import RecipeMaker, write_checkpoint

from raytrain.errors import TrainingError
from raytrain.runs.ownership import Owner
from raytrain.runs.records import open_records
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.training.checkpoint_store import checkpoint_folder
from raytrain.training.outcome import TrainResult
from raytrain.tuning.exploit import take_over
from raytrain.tuning.measured import measured
from raytrain.tuning.task import Donor


def test_a_donors_checkpoint_becomes_the_runs_own_with_its_values(tune_recipe: RecipeMaker) -> None:
    spec = tune_recipe("train.schedule=constant", "train.learning_rate=0.02", "train.weight_decay=0.3").spec
    storage = spec.storage.location
    write_checkpoint(storage, "donor", 5)
    digest = write_checkpoint(storage, "donor", 10)
    taken = take_over(Donor("donor", 20), spec, "heir")
    assert taken.train.max_steps == 20
    heirs = open_artifact(checkpoint_folder(storage, "heir") / "step-00000010", kind="checkpoint")
    assert heirs.manifest.parents == {"checkpoint": digest}
    state = json.loads((heirs.path / "state.json").read_text())
    assert state == {"belonging": {"run_id": "heir", "tokens_digest": "sha256:t"}, "learning_rate": 0.02}
    groups = json.loads((heirs.path / "optimizer.json").read_text())
    assert [one["weight_decay"] for one in groups] == [0.3, 0.0]
    assert (heirs.path / "trained" / "weights").read_bytes() == bytes(100)


def test_a_run_that_has_gone_on_keeps_its_own_checkpoints(tune_recipe: RecipeMaker) -> None:
    spec = tune_recipe("train.schedule=constant").spec
    storage = spec.storage.location
    write_checkpoint(storage, "donor", 10)
    own = write_checkpoint(storage, "heir", 15)
    take_over(Donor("donor", 20), spec, "heir")
    folder = checkpoint_folder(storage, "heir")
    assert [one.name for one in folder.children()] == ["step-00000015"]
    assert open_artifact(folder / "step-00000015").digest == own


def test_a_donor_without_a_checkpoint_is_told(tune_recipe: RecipeMaker) -> None:
    with pytest.raises(TrainingError, match="run donor has no checkpoint to go on from"):
        take_over(Donor("donor", 20), tune_recipe().spec, "heir")
    assert take_over(Donor(None, 20), tune_recipe().spec, "heir").train.max_steps == 20


def test_what_a_trial_is_judged_by(tune_recipe: RecipeMaker) -> None:
    records = open_records()
    spec = tune_recipe("train.save_every=5").spec
    records.create_run("r", kind="train", name="r", config={})
    records.add_metrics("r", [(5, 0.0, {"eval/loss": 0.4}), (10, 1.0, {"eval/loss": 0.6})])
    records.add_event("r", "plan", "40 steps over 9 rows, 2 validation rows, 77 trainable parameters")
    place = spec.storage.location / "runs" / "r" / "adapter"
    with ArtifactWriter(place, kind="adapter") as writer:
        (writer.path / "weights").write_bytes(bytes(1234))
        artifact = writer.commit({})
    given = {"eval/loss": 0.6, "train/grad_norm": float("nan")}
    result = TrainResult("r", "succeeded", str(artifact.location), artifact.digest, 10, given)
    found = measured(records, spec, result)
    told = {"eval/loss": 0.6, "result/bytes": 1234.0, "result/num_trainable": 77.0}
    assert found == {**told, "run/duration_s": 0.0}
    best = spec.model_copy(update={"train": spec.train.model_copy(update={"result": "best"})})
    assert measured(records, best, result)["eval/loss"] == 0.4, "of the weights that it hands over"


def test_the_duration_of_a_run_that_was_resumed_counts_its_starts_alone(tune_recipe: RecipeMaker) -> None:
    records = open_records()
    records.create_run("r", kind="train", name="r", config={})
    for began, over, state in ((1_000.0, 1_030.0, "cancelled"), (9_000.0, 9_012.0, "succeeded")):
        records.claim_run("r", Owner.current(), now=began)
        records.set_state("r", state, now=over)
    result = TrainResult("r", "succeeded", None, None, 10, {})
    assert measured(records, tune_recipe().spec, result)["run/duration_s"] == 42.0

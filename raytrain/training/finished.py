"""A run that is done answers from the records."""

from __future__ import annotations

from raytrain.data.prepare import prepare_dataset
from raytrain.errors import IntegrityError
from raytrain.runs.record_types import RunRecord
from raytrain.runs.records import Records
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import short_digest
from raytrain.training.outcome import TrainResult
from raytrain.training.spec import RunSpec


def finished_before(spec: RunSpec, records: Records, run: RunRecord) -> TrainResult | None:
    """The result of a run that is done, from the records; None where there is work left.

    Raises IntegrityError where its result is damaged, or where the sources hold other rows by now.
    """
    run_id = run.id
    uri = records.artifact_of(run_id, role="model")
    if run.state != "succeeded" or uri is None:
        return None
    artifact = open_artifact(Location(uri))
    dataset = prepare_dataset(spec.data, spec.storage.location)
    if dataset.digest != artifact.manifest.parents["dataset"]:
        raise IntegrityError(
            f"run {run_id} is done, but with other rows",
            why=f"it learned from dataset {short_digest(artifact.manifest.parents['dataset'])}, the sources now give "
            f"{short_digest(dataset.digest)}",
            fix="train on the new rows with --fresh, or put the old ones back",
        )
    metrics = {key: point.value for key, point in records.latest_metrics(run_id).items()}
    return TrainResult(
        run_id, run.state, uri, artifact.digest, run.global_step, metrics, was_done_before=True
    )


def trained_before(spec: RunSpec, records: Records) -> TrainResult | None:
    """The result of a run that has trained this spec under whatever name, a trial of a search for example.

    Raises as `finished_before`.
    """
    runs = records.list_runs(kind="train", state="succeeded", name=spec.name, limit=1_000_000).runs
    for run in runs:
        if run.config_digest == spec.identity and (done := finished_before(spec, records, run)):
            return done
    return None

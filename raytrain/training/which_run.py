"""Which run a command means: a new one, one to resume, or one that is done and answers from the records."""

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


def choose_run_id(known: list[RunRecord], base_id: str, *, fresh: bool) -> str:
    """The newest run of this command, or with `fresh` the next free id: `base`, `base.2`, `base.3`, …"""
    numbers = [1 if run.id == base_id else int(run.id.rpartition(".")[2]) for run in known]
    if not numbers:
        return base_id
    newest = max(numbers) + (1 if fresh else 0)
    return base_id if newest == 1 else f"{base_id}.{newest}"


def known_runs(records: Records, spec: RunSpec, run_id: str | None) -> list[RunRecord]:
    """Earlier runs of the same command: the id itself and its fresh repetitions."""
    base_id = spec.run_id if run_id is None else run_id
    page = records.list_runs(kind="train", limit=1_000_000, name=spec.name if run_id is None else None)
    return [
        run
        for run in page.runs
        if run.id == base_id or (run.id.startswith(f"{base_id}.") and run.id[len(base_id) + 1 :].isdigit())
    ]


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

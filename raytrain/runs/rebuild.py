"""Fill the records database again from what lies beside it: run folders and the manifests of artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from raytrain.errors import PlatformError
from raytrain.runs import folder
from raytrain.runs.ownership import Owner
from raytrain.runs.record_types import ArtifactUse, EventRecord, RunRecord
from raytrain.runs.records import Records
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, Manifest, digest_of, read_manifest

_ROWS_PER_TRANSACTION = 2_000
_DEPTH_OF_ARTIFACTS = 2  # <storage>/runs/<run>/checkpoints/step-…
_UNREADABLE = (PlatformError, ValueError, KeyError, TypeError, AttributeError)


@dataclass
class Rebuilt:
    """What was put into the database, and what could not be read, with the reason."""

    runs: list[str] = field(default_factory=list)
    num_known_runs: int = 0
    num_metric_rows: int = 0
    num_events: int = 0
    num_artifacts: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def rebuild(records: Records, storage: Location) -> Rebuilt:
    """Add the runs and artifacts that the database does not know; runs that it knows are left as they are.

    A folder or manifest that cannot be read is passed over and named in `skipped`.
    """
    result = Rebuilt()
    known = {run.id for run in records.list_runs(limit=records.list_runs(limit=0).total).runs}
    for place in Location.parse(raytrain_home() / "runs").children():
        if not (place / folder.RUN_FILE).exists():
            continue
        if place.name in known:
            result.num_known_runs += 1
            continue
        try:
            _add_run_of_folder(records, place.path, result)
            known.add(place.name)
        except _UNREADABLE as error:
            result.skipped[str(place)] = _reason(error)
    for place in (storage / "runs").children():
        found = _artifacts_below(place, result)
        if found and place.name not in known:
            records.restore_run(_run_behind(place, found), [])
            result.runs.append(place.name)
        if found:
            _add_written(records, place.name, found, result)
    return result


def _reason(error: BaseException) -> str:
    return error.why if isinstance(error, PlatformError) else f"{type(error).__name__}: {error}"


def _add_run_of_folder(records: Records, place: Path, result: Rebuilt) -> None:
    described = json.loads((place / folder.RUN_FILE).read_text(encoding="utf-8"))
    known_fields = {one.name for one in fields(RunRecord)}
    queued = RunRecord(
        **{**{k: v for k, v in described.items() if k in known_fields}, "id": place.name, "state": "queued"}
    )
    lines = folder.read_json_lines(place / folder.EVENTS_FILE)
    events = [EventRecord(float(line["time"]), line["kind"], line["message"], line["data"]) for line in lines]
    records.restore_run(replayed(queued, events), events)
    result.runs.append(place.name)
    result.num_events += len(events)
    rows = folder.read_metric_rows(place / folder.METRICS_FILE)
    while batch := list(islice(rows, _ROWS_PER_TRANSACTION)):
        records.add_metrics(place.name, batch)
        records.raise_global_step(place.name, batch[-1].global_step)
        result.num_metric_rows += len(batch)
    for event in events:
        if event.kind == "artifact":
            use = {one.name: event.data[one.name] for one in fields(ArtifactUse)}
            records.index_artifact(ArtifactUse(**use), event.data["parents"])
            result.num_artifacts += 1


def replayed(run: RunRecord, events: Sequence[EventRecord]) -> RunRecord:
    """The run after its state events, in their order."""
    for event in events:
        if event.kind != "state":
            continue
        data = event.data
        run = replace(run, state=data["state"], exit_reason=data.get("exit_reason"), error=data.get("error"))
        if data.get("global_step") is not None:
            run = replace(run, global_step=data["global_step"])
        if run.state == "running":
            owner = Owner(**data["owner"])
            run = replace(run, owner=owner, heartbeat_at=event.time, ended_at=None)
            run = replace(run, started_at=run.started_at or event.time)
        elif run.state != "queued":
            run = replace(run, ended_at=event.time)
    return run


def _artifacts_below(place: Location, result: Rebuilt) -> list[tuple[Location, Manifest]]:
    found = []
    for location in _manifest_places(place, _DEPTH_OF_ARTIFACTS):
        try:
            found.append((location, read_manifest(location)))
        except _UNREADABLE as error:
            result.skipped[str(location)] = _reason(error)
    return found


def _manifest_places(place: Location, depth: int) -> Iterator[Location]:
    if (place / MANIFEST_NAME).exists():
        yield place
    elif depth > 0 and (not place.is_local or place.path.is_dir()):
        for child in place.children():
            if not child.name.startswith("."):
                yield from _manifest_places(child, depth - 1)


def _run_behind(place: Location, found: Sequence[tuple[Location, Manifest]]) -> RunRecord:
    """A run of which no folder is on this machine: what its artifacts tell of it."""
    is_done = any(_role_of(manifest) == "model" for _, manifest in found)
    stated = [manifest.provenance.get("config") for _, manifest in found]
    config: dict[str, Any] = next((one for one in stated if one), {})
    times = [_written_at(manifest) for _, manifest in found]
    return RunRecord(
        id=place.name,
        kind="train",
        name=str(config.get("name") or place.name),
        state="succeeded" if is_done else "failed",
        config=config,
        config_digest=digest_of(config),
        storage_uri=str(place.parent.parent),
        created_at=min(times),
        started_at=min(times),
        ended_at=max(times),
        exit_reason=None if is_done else "how it ended is not known: rebuilt from its checkpoints",
    )


def _add_written(
    records: Records, run_id: str, found: Sequence[tuple[Location, Manifest]], result: Rebuilt
) -> None:
    """An artifact below a run's place in the storage was written by that run, on whatever machine it went."""
    known = {use.digest for use in records.artifacts(run_id) if use.direction == "written"}
    for location, manifest in found:
        if manifest.digest not in known:
            written_at, role = _written_at(manifest), _role_of(manifest)
            use = ArtifactUse(
                run_id, role, "written", manifest.kind, manifest.digest, str(location), written_at
            )
            records.index_artifact(use, manifest.parents)
            result.num_artifacts += 1


def _role_of(manifest: Manifest) -> str:
    return "model" if manifest.kind in ("adapter", "model") else manifest.kind


def _written_at(manifest: Manifest) -> float:
    """0 where the artifact does not say."""
    stated: Any = manifest.provenance.get("created_at")
    try:
        return datetime.fromisoformat(stated).timestamp()
    except (TypeError, ValueError):
        return 0.0

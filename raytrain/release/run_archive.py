"""A run as one artifact, so that one signature covers it: its log and series, its checkpoints, its result, and the
reports about it.

log/…              the run's folder on this machine: log.txt, metrics.jsonl, events.jsonl, recipe.yaml, run.json, …
KIND/NAME-DIGEST/… each artifact that it wrote, and each report that rests on one of these, with its own manifest
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import ConfigError, IntegrityError, PlatformError
from raytrain.runs.record_types import RunRecord
from raytrain.runs.records import Records
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.home import raytrain_home, run_folder
from raytrain.storage.location import Location
from raytrain.storage.manifest import file_sha256, short_digest
from raytrain.storage.provenance import collect_provenance

KIND = "run"
LOG_FOLDER = "log"
_NO_REPORTS = ("adapter", "base_model", "bundle", "checkpoint", "dataset", "model", "tokens")
"""What rests on a run's artifacts and is no report about them."""


@dataclass(frozen=True)
class RunArchive:
    """A run that stands whole in one folder."""

    artifact: Artifact
    left_out: list[str]
    """Artifacts that the records know and that are not there any more, as checkpoints that made room."""


def archive_place(run_id: str) -> Path:
    """Where it is put, and looked for."""
    return raytrain_home() / "signed_runs" / run_id


def archive_run(run: RunRecord, records: Records) -> RunArchive:
    """Files are linked where they lie on the same disk, and copied elsewhere; logs are always copied.

    Raises ConfigError where the run has not ended or its folder is not on this machine, IntegrityError where an
    artifact is not as it was written.
    """
    if run.ended_at is None:
        raise ConfigError(
            f"run {run.id} is {run.state}",
            why="what is signed never changes, and it still writes",
            fix="wait for its end, or stop it: raytrain runs stop",
        )
    logs = run_folder(run.id)
    if not logs.is_dir():
        raise ConfigError(
            f"the folder of run {run.id} is not on this machine",
            why=f"there is no {logs}",
            fix="sign it where it ran",
        )
    parts, left_out = _parts(run.id, records)
    uses = records.artifacts(run.id)
    parents = {f"{use.role}": use.digest for use in uses if use.direction == "read"}
    with ArtifactWriter(Location(str(archive_place(run.id))), kind=KIND, parents=parents) as writer:
        shutil.copytree(logs, writer.path / LOG_FOLDER, ignore=_no_files)
        for name, artifact in parts.items():
            shutil.copytree(artifact.path, writer.path / name, copy_function=_link)
        told = collect_provenance(run_id=run.id, left_out=left_out)
        return RunArchive(writer.commit(told, replace=True), left_out)


def check_originals(archive: Artifact, run_id: str, records: Records) -> None:
    """What still lies where the run left it is what was signed. Raises IntegrityError that names what differs."""
    different = []
    logs = run_folder(run_id)
    for name, entry in archive.manifest.files.items():
        if name.startswith(f"{LOG_FOLDER}/") and logs.is_dir():
            file = logs / name.removeprefix(f"{LOG_FOLDER}/")
            if not file.is_file():
                different.append(f"{file} is missing")
            elif file_sha256(file) != entry.sha256:
                different.append(f"{file} was signed with another content")
    try:
        _parts(run_id, records)
    except IntegrityError as error:
        different.append(error.line)
    if different:
        raise IntegrityError(
            f"run {run_id} is not as it was signed",
            why="; ".join(different[:5]),
            fix=f"the signed copy is whole: {archive.location}; find out who wrote there",
        )


def _parts(run_id: str, records: Records) -> tuple[Mapping[str, Artifact], list[str]]:
    """Artifacts by the folders that they get; what is not there any more, in words."""
    found: dict[str, Artifact] = {}
    left_out: list[str] = []
    for digest in _digests(run_id, records):
        known = records.find_artifact(digest)
        place = None if known is None or known.uri is None else Location.parse(known.uri)
        told = f"{known.kind if known else 'artifact'} {short_digest(digest)}"
        if place is None or not place.exists():
            left_out.append(f"{told}: it is not there any more")
            continue
        artifact = open_artifact(place)
        if artifact.digest != digest:
            raise IntegrityError(
                f"{place} is not what run {run_id} left there",
                why=f"it is {artifact.digest}, noted was {digest}",
                fix="find out who wrote there",
            )
        found[f"{artifact.kind}/{place.name}-{short_digest(digest)}"] = artifact
    return found, left_out


def _digests(run_id: str, records: Records) -> list[str]:
    """Of what the run wrote, and of the reports that rest on that, and on these."""
    written = [use.digest for use in records.artifacts(run_id) if use.direction == "written"]
    known = records.all_artifacts()
    reports: set[str] = set()
    while True:
        rests = {*written, *reports}
        more = {
            digest
            for digest, (kind, parents) in known.items()
            if kind not in _NO_REPORTS and digest not in rests and rests & set(parents.values())
        }
        if not more:
            return list(dict.fromkeys([*written, *sorted(reports)]))
        reports |= more


def _no_files(folder: str, names: list[str]) -> set[str]:
    """Sockets, links and locks are no part of what was written down."""
    return {
        one
        for one in names
        if (place := Path(folder) / one).is_symlink()
        or not (place.is_file() or place.is_dir())
        or one.endswith(".lock")
    }


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def archived(reference: str, records: Records) -> RunRecord | None:
    """The run that a person names; None where nothing is called so."""
    if "/" in reference:
        return None
    try:
        return records.run_with_prefix(reference)
    except PlatformError:
        return None

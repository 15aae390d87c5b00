"""Files of bundles as artifacts of MLflow's runs, through the server: one run, one bundle."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from raytrain.errors import ConfigError, StorageError
from raytrain.release.registry.mlflow_client import MlflowServer, experiment_of, is_told
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME

_NAME, _DIGEST = "raytrain.name", "raytrain.bundle"
_PROXY = "mlflow-artifacts:"
_PAGE = 1000
_LEAST_RATE = 10_000_000
"""Bytes a second, at which a server is waited for that passes a file on to where it keeps it."""
_timeout = threading.Lock()
_MISREAD = re.compile(r"[#?]|%[0-9A-Fa-f]{2}")
"""MLflow's client puts a file's name into a URL as it is."""


@dataclass(frozen=True)
class BundleRun:
    run_id: str
    digest: str
    started_s: float
    """By the clock of who made it, since 1970."""


class MlflowFiles:
    """Of all bundles of a registry."""

    def __init__(self, server: MlflowServer) -> None:
        self._server, self._client = server, server.client
        self._repositories: dict[str, Any] = {}

    def runs(self, name: str, digest: str | None = None) -> list[BundleRun]:
        """Those of a name, or of one of its bundles, that were not deleted."""
        wanted = f"tags.`{_NAME}` = '{name}'"
        wanted += "" if digest is None else f" AND tags.`{_DIGEST}` = '{digest}'"
        found: list[Any] = []
        page = None
        with self._server.told("list its runs"):
            experiment = experiment_of(self._client)
            while True:
                part = self._client.search_runs([experiment], wanted, max_results=_PAGE, page_token=page)
                found += part
                page = part.token
                if not page:
                    break
        # A run that was deleted between two pages lets another be seen in none, one that was made one twice.
        runs = {one.info.run_id: one for one in found}
        return [
            BundleRun(key, one.data.tags[_DIGEST], one.info.start_time / 1000) for key, one in runs.items()
        ]

    def check_names(self, bundle: Path) -> None:
        """Raises ConfigError where MLflow would keep a file under another name."""
        for name in open_artifact(Location(str(bundle)), verify=False).manifest.files:
            if _MISREAD.search(name):
                raise ConfigError(
                    f"{self._server.place} cannot keep {bundle}",
                    why=f"MLflow's client takes {name!r} for another name",
                    fix="call that file otherwise, without #, ? and %, and build the artifact again",
                )

    def create(self, name: str, digest: str) -> tuple[str, str]:
        """An empty run's id, and where its files will be.

        Raises StorageError where the server does not keep files for its clients.
        """
        tags = {_NAME: name, _DIGEST: digest}
        with self._server.told("make a run"):
            run = self._client.create_run(
                experiment_of(self._client), tags=tags, run_name=f"{name} {digest[:12]}"
            )
        self._repository(run.info.run_id)
        return run.info.run_id, run.info.artifact_uri

    def source(self, run_id: str) -> str:
        """Where a run's files are."""
        with self._server.told("read a run"):
            return str(self._client.get_run(run_id).info.artifact_uri)

    def upload(self, run_id: str, bundle: Path) -> None:
        """Every file of an artifact, its manifest last."""
        artifact = open_artifact(Location(str(bundle)), verify=False)
        for name in [*sorted(artifact.manifest.files), MANIFEST_NAME]:
            file, parent = bundle / name, str(PurePosixPath(name).parent)
            with _patience(file.stat().st_size), self._server.told("write a bundle"):
                self._repository(run_id).log_artifact(str(file), None if parent == "." else parent)

    def manifest(self, run_id: str) -> bytes | None:
        if not self.is_there(run_id):
            return None
        repository = self._repository(run_id)
        with self._server.told("read a manifest"), tempfile.TemporaryDirectory(prefix="raytrain-") as scratch:
            if MANIFEST_NAME not in [one.path for one in repository.list_artifacts()]:
                return None
            return Path(repository.download_artifacts(MANIFEST_NAME, scratch)).read_bytes()

    def download(self, run_id: str, folder: Path) -> None:
        """Everything that is there. MLflow's client refuses paths that lead elsewhere."""
        if self.is_there(run_id):
            repository = self._repository(run_id)
            with self._server.told("read a bundle"):
                largest = max(_sizes(repository, None), default=0)
            with _patience(largest), self._server.told("read a bundle"):
                repository.download_artifacts("", str(folder))

    def is_there(self, run_id: str, *, deleted_too: bool = True) -> bool:
        """deleted_too: MLflow keeps a run that was deleted until `mlflow gc`."""
        if deleted_too and run_id in self._repositories:
            return True
        with self._server.told("read a run"):
            try:
                run = self._client.get_run(run_id)
            except self._server.faults as error:
                if is_told(error, "RESOURCE_DOES_NOT_EXIST"):
                    return False
                raise
        return deleted_too or run.info.lifecycle_stage == "active"

    def mark_deleted(self, run_id: str, *, deleted: bool) -> None:
        with self._server.told("delete a run"):
            (self._client.delete_run if deleted else self._client.restore_run)(run_id)

    def delete_files(self, run_id: str) -> None:
        with self._server.told("delete a bundle"):
            self._repository(run_id).delete_artifacts()

    def _repository(self, run_id: str) -> Any:
        if run_id not in self._repositories:
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            with self._server.told("read a run"):
                place = self._client.get_run(run_id).info.artifact_uri
                if not place.startswith(_PROXY):
                    raise StorageError(
                        f"{self._server.place}: cannot keep a bundle",
                        why=f"its clients are to write to {place} themselves",
                        fix="start it with --serve-artifacts and --artifacts-destination, and without "
                        "--default-artifact-root",
                    )
                self._repositories[run_id] = get_artifact_repository(place, tracking_uri=self._server.uri)
        return self._repositories[run_id]


def _sizes(repository: Any, folder: str | None) -> Iterator[int]:
    for one in repository.list_artifacts(folder):
        if one.is_dir:
            yield from _sizes(repository, one.path)
        else:
            yield one.file_size or 0


@contextmanager
def _patience(size_bytes: int) -> Iterator[None]:
    """The server answers once the file is where it keeps it. How long to wait, MLflow's client asks its environment."""
    key = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    with _timeout:
        before = os.environ[key]
        os.environ[key] = str(int(before) + size_bytes // _LEAST_RATE)
        try:
            yield
        finally:
            os.environ[key] = before

"""Registries on an MLflow server, as the contracts' places: whoever may write there, with MLflow's own client."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from raytrain.release.registry.mlflow_client import EXPERIMENT
from raytrain.release.registry.store import Store, open_store
from raytrain.release.signing import SIGNATURE_SUFFIX
from raytrain.storage.manifest import MANIFEST_NAME


@dataclass(frozen=True)
class OnMlflow:
    """Of a server, which keeps one registry."""

    endpoint: str

    @property
    def uri(self) -> str:
        return f"mlflow+{self.endpoint}"

    @property
    def client(self) -> Any:
        return MlflowClient(tracking_uri=self.endpoint, registry_uri=self.endpoint)

    def open(self) -> Store:
        return open_store(self.uri)

    def clear(self) -> None:
        """Let there be no registry."""
        for model in self.client.search_registered_models(max_results=1000):
            self.client.delete_registered_model(model.name)
        for run in self._runs(""):
            self.client.delete_run(run.info.run_id)

    def read(self, place: str) -> bytes:
        model, what, file = self._parts(place)
        claim = self.claim(model, what)
        assert claim is not None, place
        if model.startswith("_journal."):
            return str(claim.tags["raytrain.content"]).encode()
        if file is None:
            return str(claim.tags["raytrain.signature"]).encode()
        with tempfile.TemporaryDirectory() as scratch:
            return Path(self.client.download_artifacts(claim.run_id, file, scratch)).read_bytes()

    def write(self, place: str, content: bytes | None) -> None:
        model, what, file = self._parts(place)
        claim = self.claim(model, what)
        # PostgreSQL keeps no NUL in a text: nobody can write one there.
        text = (
            None
            if content is None
            else content.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        )
        if model.startswith("_journal."):
            self._write_entry(model, what, claim, text)
        elif file is None:
            self._write_signature(model, what, claim, text)
        else:
            self._write_file(model, what, claim, file, content)

    def claim(self, model: str, what: str) -> Any:
        key = "raytrain.entry" if model.startswith("_journal.") else "raytrain.bundle"
        found = self.client.search_model_versions(f"name = '{model}' AND tags.`{key}` = '{what}'")
        return min(found, key=lambda one: int(one.version), default=None)

    def _write_entry(self, model: str, number: str, claim: Any, text: str | None) -> None:
        if text is None:
            self.client.delete_model_version(model, claim.version)
        elif claim is None:
            tags = {"raytrain.entry": number, "raytrain.content": text}
            self.client.create_model_version(model, "x://y/z", tags=tags)
        else:
            self.client.set_model_version_tag(model, claim.version, "raytrain.content", text)

    def _write_signature(self, model: str, digest: str, claim: Any, text: str | None) -> None:
        if text is None:
            self.client.delete_model_version_tag(model, claim.version, "raytrain.signature")
        else:
            claim = claim or self._claimed(model, digest)
            self.client.set_model_version_tag(model, claim.version, "raytrain.signature", text)

    def _write_file(self, model: str, digest: str, claim: Any, file: str, content: bytes | None) -> None:
        if claim is None and file == MANIFEST_NAME:
            claim = self._claimed(model, digest)
        run_id = claim.run_id if claim is not None else self._run(model, digest)
        if content is None:
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            uri = self.client.get_run(run_id).info.artifact_uri
            get_artifact_repository(uri, tracking_uri=self.endpoint).delete_artifacts(file)
            return
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / Path(file).name
            local.write_bytes(content)
            parent = str(Path(file).parent)
            self.client.log_artifact(run_id, str(local), None if parent == "." else parent)

    def _claimed(self, model: str, digest: str) -> Any:
        run_id = self._run(model, digest)
        return self.client.create_model_version(model, "x://y/z", run_id, tags={"raytrain.bundle": digest})

    def _run(self, model: str, digest: str) -> str:
        with suppress(MlflowException):
            self.client.create_registered_model(model)
        name = model.partition(".")[2]
        runs = self._runs(f"tags.`raytrain.name` = '{name}' AND tags.`raytrain.bundle` = '{digest}'")
        if runs:
            return str(runs[0].info.run_id)
        tags = {"raytrain.name": name, "raytrain.bundle": digest}
        return str(self.client.create_run(self._experiment(), tags=tags).info.run_id)

    def _runs(self, wanted: str) -> list[Any]:
        return list(self.client.search_runs([self._experiment()], wanted))

    def _experiment(self) -> str:
        known = self.client.get_experiment_by_name(EXPERIMENT)
        return str(self.client.create_experiment(EXPERIMENT) if known is None else known.experiment_id)

    def _parts(self, place: str) -> tuple[str, str, str | None]:
        """The model, what is claimed, and the file; None: the signature, or an entry."""
        model, _, rest = place.removeprefix(f"{self.uri}/").partition("/")
        what, _, file = rest.partition("/")
        return model, what.removesuffix(SIGNATURE_SUFFIX), file or None

"""A real MLflow server with SQLite keeps the contract of a mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="the extra raytrain[mlflow] is not installed")
pytest.importorskip("flask", reason="MLflow's server needs it")
pytest.importorskip("flask_cors", reason="MLflow's server needs it")

from mirror_contract import MirrorContract
from mlflow_server import mlflow_server
from object_server import Proxy

from raytrain.release.registry.mlflow_client import EXPERIMENT
from raytrain.release.registry.mlflow_mirror import MlflowMirror

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as proxy:
        yield proxy


@dataclass
class MlflowPlace:
    proxy: Proxy
    least_requests: int = 12
    stride: int = 1

    @property
    def _client(self) -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.proxy.endpoint)

    def open(self, url: str | None = None, *, in_a_hurry: bool = False) -> MlflowMirror:
        return MlflowMirror(url or self.proxy.endpoint)

    def options(self, url: str | None = None) -> list[str]:
        return ["--mlflow", url or self.proxy.endpoint]

    def seen(self, name: str) -> dict[str, Any]:
        client = self._client
        versions, numbers = {}, {}
        for one in client.search_model_versions(f"name = '{name}'"):
            version = one.tags["raytrain.version"]
            numbers[str(one.version)] = version
            metrics = client.get_run(one.run_id).data.metrics
            for key in metrics:
                assert len(client.get_metric_history(one.run_id, key)) == 1, key
            entry = Path(client.download_artifacts(one.run_id, "release/entry.json"))
            versions[version] = {
                "facts": dict(one.tags),
                "metrics": metrics,
                "why": one.description,
                "entry": json.loads(entry.read_text()),
            }
        aliases = dict(client.get_registered_model(name).aliases)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], f"tags.`raytrain.entry` LIKE '{name} %'")
        return {
            "versions": versions,
            "aliases": {alias: numbers[str(number)] for alias, number in aliases.items()},
            "num_runs": len(runs),
        }

    def meddle(self, name: str) -> None:
        client = self._client
        one = min(client.search_model_versions(f"name = '{name}'"), key=lambda found: int(found.version))
        client.set_registered_model_alias(name, "production", one.version)
        client.set_registered_model_alias(name, "champion", one.version)
        client.set_model_version_tag(name, one.version, "raytrain.digest", "sha256:evil")
        client.set_model_version_tag(name, one.version, "made_from.nothing", "x")
        client.set_model_version_tag(name, one.version, "their own", "stays")
        client.create_model_version(name, one.source, one.run_id, tags=one.tags)


class TestMlflowMirror(MirrorContract):
    @pytest.fixture
    def place(self, server: Proxy, monkeypatch: pytest.MonkeyPatch) -> MlflowPlace:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        return MlflowPlace(server)

"""A registry in MLflow: the contract against a real server, and requests that fail, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("mlflow", reason="the extra raytrain[mlflow] is not installed")
pytest.importorskip("flask", reason="MLflow's server needs it")
pytest.importorskip("flask_cors", reason="MLflow's server needs it")

from mlflow_places import OnMlflow
from mlflow_server import mlflow_server
from object_server import Proxy
from registry_contract import RegistryContract
from shelf_contract import ShelfContract

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as proxy:
        yield proxy


@pytest.fixture
def place(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> OnMlflow:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server.plan(None)
    place = OnMlflow(server.endpoint)
    place.clear()
    return place


class TestMlflow(RegistryContract):
    start_method = "spawn"  # the client has threads


class TestShelfOnMlflow(ShelfContract):
    pass

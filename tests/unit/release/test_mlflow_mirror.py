"""A real MLflow server with SQLite says what the registry says, whatever happened to it or on the way there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="the extra raytrain[mlflow] is not installed")
pytest.importorskip("flask", reason="MLflow's server needs it")
pytest.importorskip("flask_cors", reason="MLflow's server needs it")

from bundles import signed_bundle
from object_server import Failure, Proxy, free_port, handler_of
from registry_contract import V1, V2

from raytrain.cli.main import run
from raytrain.errors import EndpointError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.mlflow_mirror import EXPERIMENT, MlflowMirror
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """MLflow's own server, behind a proxy that fails as it is told."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        try:
            _wait_for(port, process, folder / "log")
            proxy = Proxy(port)
            listening = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(proxy))
            listening.daemon_threads = True
            proxy.port = listening.server_address[1]
            threading.Thread(target=listening.serve_forever, daemon=True).start()
            yield proxy
            listening.shutdown()
            listening.server_close()
        finally:
            os.killpg(process.pid, 15)  # it has children of its own
            process.wait(timeout=30)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


@pytest.fixture(autouse=True)
def untold(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    server.plan(None)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def registry(tmp_path: Path, ring: KeyRing) -> Registry:
    return Registry(tmp_path / "registry")


def fill(registry: Registry, ring: KeyRing, folder: Path, name: str, *versions: Version) -> None:
    """Versions, the last of them in production, with metrics; the first has tags."""
    for i, version in enumerate(versions or (V1, V2)):
        bundle = signed_bundle(folder / f"{name}-{i}", ring, i)
        made_from = {"base_model": "sha256:b", "dataset": f"sha256:{i}"}
        details = {
            "metrics": {"sums/score": 0.25 + i / 2, "sums/exact match": 0.5},
            "subject": f"sha256:s{i}",
        }
        registry.register(
            name, version, bundle, ring, made_from=made_from, why=f"number {i}", details=details
        )
        before = registry.state(name).aliases.get("production")
        registry.move(name, "production", version, expected=before, decision=None, why="it passed")
    registry.tag(name, V1, added={"golden", "größer"})


def seen(uri: str, name: str) -> dict[str, Any]:
    """As MLflow's own client, and so its pages, tell it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    versions = {}
    for one in client.search_model_versions(f"name = '{name}'"):
        run = client.get_run(one.run_id)
        histories = {key: client.get_metric_history(one.run_id, key) for key in run.data.metrics}
        versions[one.tags["raytrain.version"]] = {
            "tags": dict(one.tags),
            "metrics": {key: [point.value for point in points] for key, points in histories.items()},
            "why": one.description,
            "entry": [file.path for file in client.list_artifacts(one.run_id, "release")],
            "number": str(one.version),
        }
    aliases = dict(client.get_registered_model(name).aliases)
    numbers = {one["number"]: version for version, one in versions.items()}
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`raytrain.entry` LIKE '{name} %'")
    return {
        "versions": {key: {**one, "number": None} for key, one in versions.items()},
        "aliases": {alias: numbers[str(number)] for alias, number in aliases.items()},
        "num_runs": len(runs),
    }


def test_versions_metrics_lineage_and_aliases_are_seen(
    server: Proxy, registry: Registry, ring: KeyRing, tmp_path: Path
) -> None:
    fill(registry, ring, tmp_path, "seen")
    mirror = MlflowMirror(server.endpoint)
    assert mirror.drift(registry, "seen") == ["seen is not there"]
    assert mirror.follow(registry, "seen")
    found = seen(server.endpoint, "seen")
    assert found["aliases"] == {"production": "1.1.0", "previous": "1.0.0"} and found["num_runs"] == 2
    first = found["versions"]["1.0.0"]
    assert first["metrics"] == {"sums/score": [0.25], "sums/exact match": [0.5]}
    assert first["tags"]["made_from.dataset"] == "sha256:0"
    assert first["tags"]["raytrain.digest"] == registry.find("seen@1.0.0").digest
    assert first["tags"]["raytrain.tags"] == "golden, größer"
    assert first["why"] == "number 0" and first["entry"] == ["release/entry.json"]
    assert mirror.follow(registry, "seen") == [] and mirror.drift(registry, "seen") == []
    assert seen(server.endpoint, "seen") == found
    move_back = registry.move("seen", "production", V1, expected=V2, decision=None, why="back")
    assert move_back and len(mirror.drift(registry, "seen")) == 2
    mirror.follow(registry, "seen")
    assert seen(server.endpoint, "seen")["aliases"] == {"production": "1.0.0", "previous": "1.1.0"}


def test_what_others_change_there_is_found_and_set_back(
    server: Proxy, registry: Registry, ring: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    fill(registry, ring, tmp_path, "changed")
    mirror = MlflowMirror(server.endpoint)
    mirror.follow(registry, "changed")
    before = seen(server.endpoint, "changed")
    client = MlflowClient(tracking_uri=server.endpoint)
    one = min(client.search_model_versions("name = 'changed'"), key=lambda found: int(found.version))
    client.set_registered_model_alias("changed", "production", one.version)
    client.set_registered_model_alias("changed", "champion", one.version)
    client.set_model_version_tag("changed", one.version, "raytrain.digest", "sha256:evil")
    client.set_model_version_tag("changed", one.version, "made_from.nothing", "x")
    client.set_model_version_tag("changed", one.version, "their own", "stays")
    client.create_model_version("changed", one.source, one.run_id, tags=one.tags)
    drift = mirror.drift(registry, "changed")
    assert len(drift) == 5, drift
    place = ("--registry", registry.place)
    assert run(["registry", "doctor", *place, "--mlflow", server.endpoint]) == 0
    assert "sha256:evil" in capsys.readouterr().out
    assert run(["registry", "publish", "changed", *place, "--mlflow", server.endpoint]) == 0
    assert mirror.drift(registry, "changed") == []
    after = seen(server.endpoint, "changed")
    assert after["versions"]["1.0.0"]["tags"].pop("their own") == "stays"
    assert after == before


def test_stopped_at_any_request_it_goes_on_where_it_was(
    server: Proxy, registry: Registry, ring: KeyRing, tmp_path: Path
) -> None:
    fill(registry, ring, tmp_path, "whole", V1)
    mirror = MlflowMirror(server.endpoint)
    server.plan(None)
    mirror.follow(registry, "whole")
    total = server.count
    expected = seen(server.endpoint, "whole")
    entries = registry.entries("whole")
    failures: tuple[Failure, ...] = ("refused", "lost answer", "reset")
    assert total >= 12
    for point in range(1, total + 1):
        name = f"stopped-{point}"
        (Path(registry.place) / name).symlink_to(Path(registry.place) / "whole")
        server.plan(point, failures[point % 3], times=1_000_000)
        with pytest.raises(EndpointError) as told:
            mirror.follow(registry, name)
        server.plan(None)
        assert told.value.exit_code == 4 and server.endpoint in told.value.what
        assert f"raytrain registry publish {name}" in told.value.fix
        mirror.follow(registry, name)
        found = seen(server.endpoint, name)
        for version, one in found["versions"].items():
            same = expected["versions"][version]["tags"]["raytrain.place"]
            one["tags"]["raytrain.place"] = same
        assert found == expected, f"request {point}, {failures[point % 3]}"
        assert mirror.drift(registry, name) == []
    assert registry.entries("whole") == entries


def test_a_server_that_is_down(registry: Registry, ring: KeyRing, tmp_path: Path) -> None:
    fill(registry, ring, tmp_path, "down")
    entries = registry.entries("down")
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9") as told:
        MlflowMirror("http://127.0.0.1:9").follow(registry, "down")
    assert told.value.exit_code == 4 and "raytrain registry publish down" in told.value.fix
    assert run(["registry", "publish", "--registry", registry.place, "--mlflow", "http://127.0.0.1:9"]) == 4
    assert registry.entries("down") == entries and registry.orphans() == []

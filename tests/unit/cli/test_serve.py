"""`raytrain serve` without a server: configs, keys, and what is said where nobody answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from answering_backends import ToldBackend, listening

from raytrain.cli import main
from raytrain.errors import EndpointError
from raytrain.serving.backend import Readiness
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection

pytestmark = pytest.mark.whole

CONFIG = "base_model: models/base\nhttp: {port: 8123}\nreplicas: {num_replicas: 1, max_replicas: 3}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    place = tmp_path / "serving.yaml"
    place.write_text(CONFIG)
    return place


def test_a_config_for_ray_serve(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["serve", "config", str(config), "engine.max_rows=3"]) == 0
    told = yaml.safe_load(capsys.readouterr().out)
    assert told["http_options"] == {"host": "127.0.0.1", "port": 8123}
    (application,) = told["applications"]
    assert application["args"]["engine"]["max_rows"] == 3
    assert application["import_path"] == "serve.app:build_application"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("base_modell: x", "base_model"),
        ("engine: {max_rows: 0}", "engine.max_rows"),
        ("http: {insecure: true, host: 0.0.0.0}", "without a key"),
        ("replicas: {num_replicas: 4, max_replicas: 2}", "less than num_replicas"),
    ],
)
def test_what_is_wrong_with_a_config(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "serving.yaml"
    place.write_text(f"base_model: models/base\n{line}\n")
    assert main.run(["serve", "config", str(place)]) == 2
    told = capsys.readouterr().err
    assert said in told and "serving.yaml:2" in told


def test_a_base_model_that_is_not_there_is_said_before_ray_starts(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("raytrain.serving.launch.connect", lambda *_, **__: pytest.fail("Ray was started"))
    assert main.run(["serve", "start", str(config), "http.insecure=true"]) == 2
    assert "models/base" in capsys.readouterr().err


def test_keys_are_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path))
    assert main.run(["serve", "keys", "add", "search-team", "--model", "sums", "--json"]) == 0
    token = json.loads(capsys.readouterr().out)["key"]
    assert token.startswith("rt_")
    assert main.run(["serve", "keys", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    (key,) = json.loads(listed)["keys"]
    assert (key["name"], key["models"]) == ("search-team", ["sums"])
    assert token.rpartition("_")[2] not in listed + (tmp_path / "serving" / "keys.json").read_text()
    assert main.run(["serve", "keys", "remove", key["id"]]) == 0
    assert main.run(["serve", "keys", "remove", key["id"]]) == 2


def test_status_and_models_of_what_answers(capsys: pytest.CaptureFixture[str]) -> None:
    backend = ToldBackend()
    section = HttpSection(insecure=True, access_log=False)
    with listening(build_app(backend, section)) as url:

        def told(*words: str) -> str:
            assert main.run(["serve", *words, "--url", url]) == 0
            return capsys.readouterr().out

        assert told("status").split() == ["ready", "helper:", "1" * 19]
        assert json.loads(told("status", "--json"))["production"] == {"helper": "1" * 64}
        rows = [line.split() for line in told("models").splitlines()]
        assert ["helper", "1" * 19, "production", "True"] in rows
        listed = json.loads(told("models", "--json"))["data"]
        assert [one["id"] for one in listed] == ["tiny", "helper", "helper@production"]
        problem = "helper is in production and not loaded"
        backend.readiness_told = Readiness(False, "tiny", {}, (problem,))
        assert main.run(["serve", "status", "--url", url]) == EndpointError.exit_code
        assert capsys.readouterr().out.splitlines() == ["not ready", f"  ! {problem}"]


def test_where_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "models"):
        assert main.run(["serve", command, "--url", "http://127.0.0.1:9"]) == 4
        assert "nobody answers" in capsys.readouterr().err

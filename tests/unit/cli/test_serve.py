"""`raytrain serve` without a server: configs, keys, and what is said where nobody answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from raytrain.cli import main

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


def test_where_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "models"):
        assert main.run(["serve", command, "--url", "http://127.0.0.1:9"]) == 4
        assert "nobody answers" in capsys.readouterr().err

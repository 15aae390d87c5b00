"""`raytrain train` around a trainer that only answers; the real one is in tests/integration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.cli.main import run
from raytrain.errors import ClusterError
from raytrain.training import trainer
from raytrain.training.outcome import TrainResult

pytestmark = pytest.mark.whole

DONE = TrainResult("mine-1", "succeeded", "/a", "sha256:d", 8, {"train/loss": 0.5})


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    place = tmp_path / "mine.yaml"
    values = {"model": {"base_model": "some/model"}, "data": {"sources": ["rows.jsonl"]}}
    place.write_text(yaml.safe_dump(values))
    return place


class FakeTrainer:
    def __init__(self) -> None:
        self.result: TrainResult | Exception = DONE
        self.asked: dict[str, Any] = {}

    def __call__(self, spec: Any, **asked: Any) -> TrainResult:
        self.asked = {"spec": spec, **asked}
        print("(raylet) a worker died")  # as Ray does, on stdout
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    fake = FakeTrainer()
    monkeypatch.setattr(trainer, "train", fake)
    return fake


def test_json_is_one_object_whatever_ray_prints(
    recipe: Path, fake: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.stdout
    assert run(["train", str(recipe), "train.seed=9", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == DONE.as_dict()
    assert "a worker died" in captured.err
    assert sys.stdout is before
    assert fake.asked["spec"].train.seed == 9


def test_a_search_is_left_aside_and_that_is_told(
    recipe: Path, fake: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "search.space={train.learning_rate: {type: float, low: 1e-5, high: 1e-2}}"
    assert run(["train", str(recipe), space]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "training with the recipe's own train.learning_rate: `raytrain tune` searches for better ones" in told
    )
    assert fake.asked["spec"].train.learning_rate == 2e-4
    assert run(["train", str(recipe), space.replace("1e-2", "1e-9")]) == 2, "nor is a fault in it passed over"


def test_options_arrive(recipe: Path, fake: FakeTrainer) -> None:
    run(["train", str(recipe), "--address", "h:1", "--fresh", "--run-id", "x-1", "-v"])
    told = {key: fake.asked[key] for key in ("address", "fresh", "run_id", "verbose")}
    assert told == {"address": "h:1", "fresh": True, "run_id": "x-1", "verbose": True}


def test_a_person_is_shown_a_table(
    recipe: Path, fake: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(recipe)]) == 0
    told = capsys.readouterr().out
    assert "mine-1" in told
    assert "raytrain ask mine-1" in told


@pytest.mark.parametrize(
    ("stopped_by", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("raytrain runs stop", 0)]
)
def test_a_stop_is_told_as_a_shell_expects(
    recipe: Path, fake: FakeTrainer, capsys: pytest.CaptureFixture[str], stopped_by: str, code: int
) -> None:
    fake.result = TrainResult("mine-1", "cancelled", None, None, 3, stopped_by=stopped_by)
    assert run(["train", str(recipe)]) == code
    assert "run the same command again" in capsys.readouterr().out
    assert run(["train", str(recipe), "--json"]) == code
    assert json.loads(capsys.readouterr().out)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("stopped_by", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("raytrain runs stop", 6), (None, 0)]
)
def test_a_queue_can_tell_what_was_stopped_from_what_is_done(
    recipe: Path, fake: FakeTrainer, monkeypatch: pytest.MonkeyPatch, stopped_by: str | None, code: int
) -> None:
    monkeypatch.setenv("RAYTRAIN_QUEUE_JOB", "train-mine-1a2b3c")
    state: Any = "cancelled" if stopped_by else "succeeded"
    fake.result = TrainResult("mine-1", state, None, None, 3, stopped_by=stopped_by)
    assert run(["train", str(recipe), "--json"]) == code


def test_an_error_of_the_cluster_is_exit_4(
    recipe: Path, fake: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.result = ClusterError("no cluster", why="nobody answers", fix="start one")
    assert run(["train", str(recipe), "--json"]) == 4
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"kind": "cluster", "what": "no cluster", "why": "nobody answers", "fix": "start one"}

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.cli.main import run

pytestmark = pytest.mark.whole

JOBS = sorted((Path(__file__).parents[3] / "jobs").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("model: {base_model: m}\ntrain: {learning_rate: 1e-3, seed: 4}\n")
    place = tmp_path / "My Run.yaml"
    place.write_text("extends: base.yaml\ndata: {sources: [r.jsonl]}\ntrain: {seed: 5}\n")
    return place


def test_check_names_the_run(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", str(recipe), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["name"]) == (True, "my-run")
    assert run(["config", "check", str(recipe)]) == 0
    assert found["run_id"] in capsys.readouterr().out.replace("\n", "")


def test_check_looks_into_a_search(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = "search.space={train.learning_rat: {type: float, low: 1, high: 2}}"
    assert run(["config", "check", str(recipe), space, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["fix"] == "did you mean `train.learning_rate`?"


def test_show_resolves_presets_overrides_and_defaults(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["config", "show", str(recipe), "train.schedule=cosine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"]["learning_rate"] == 1e-3
    assert (found["train"]["seed"], found["train"]["schedule"]) == (5, "cosine")
    assert found["scaling"]["num_workers"] == 1
    assert run(["config", "show", str(recipe), "train.schedule=cosine"]) == 0
    told = capsys.readouterr().out
    assert yaml.safe_load(told) == found
    # What is shown is a recipe again, and the same one.
    shown = tmp_path / "shown.yaml"
    shown.write_text(told)
    run(["config", "check", str(shown), "--json"])
    again = json.loads(capsys.readouterr().out)["run_id"]
    run(["config", "check", str(recipe), "train.schedule=cosine", "--json"])
    assert json.loads(capsys.readouterr().out)["run_id"] == again


@pytest.fixture
def schema(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["config", "schema"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_schema_is_strict_and_describes_every_key(schema: dict[str, Any]) -> None:
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"model", "data"}
    assert "extends" in schema["properties"]
    for name, section in schema["$defs"].items():
        if name == "JsonValue":  # any value at all
            continue
        assert section["additionalProperties"] is False, name
        undescribed = [key for key, value in section["properties"].items() if "description" not in value]
        assert undescribed == [], f"{name} has keys without a word"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_the_schema_takes_our_own_recipes_and_refuses_a_misspelt_one(
    schema: dict[str, Any], job: Path
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from raytrain.config.recipe import load_recipe

    values = load_recipe(job).values
    jsonschema.validate(values, schema)
    values["train"] = {**values["train"], "learning_rat": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_our_own_recipes_are_valid(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", str(job), "--json"]) == 0, capsys.readouterr()

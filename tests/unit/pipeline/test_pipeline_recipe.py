from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from suites import write_suite

from raytrain.cli.main import run
from raytrain.errors import ConfigError
from raytrain.pipeline.section import load_pipeline
from raytrain.training.spec import load_spec
from raytrain.tuning.spec import load_tune_recipe

pytestmark = pytest.mark.whole

SEARCH = {"space": {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    write_suite(folder / "suites", "sums")
    return write(folder / "mine.yaml", {"suites": ["suites/sums.yaml"]})


def write(place: Path, pipeline: dict[str, Any], **more: Any) -> Path:
    whole = {"model": {"base_model": "m"}, "data": {"sources": ["r.jsonl"]}, "pipeline": pipeline, **more}
    place.write_text(yaml.safe_dump(whole))
    return place


def test_files_are_found_beside_the_recipe(recipe: Path) -> None:
    loaded = load_pipeline(recipe)
    assert [suite.section.suite for suite in loaded.suites] == ["sums"]
    assert loaded.search is None and loaded.section.check
    assert loaded.run_id.startswith("mine-pipeline-")


def test_what_decides_the_result_is_its_identity(recipe: Path) -> None:
    same = load_pipeline(recipe).identity
    for override, is_other in (
        ("pipeline.batch_size=2", False),
        ("scaling.num_workers=2", False),
        ("pipeline.baseline=another", True),
        ("train.seed=9", True),
        (f"search={json.dumps(SEARCH)}", True),
    ):
        assert (load_pipeline(recipe, [override]).identity != same) is is_other, override


def test_other_commands_leave_the_section_to_run(recipe: Path) -> None:
    assert load_spec(recipe).run_id == load_spec(recipe, ["pipeline.check=false"]).run_id
    search = f"search={json.dumps(SEARCH)}"
    assert (
        load_tune_recipe(recipe, [search]).identity
        == load_tune_recipe(recipe, [search, "pipeline.check=false"]).identity
    )


@pytest.mark.parametrize(
    ("pipeline", "what"),
    [
        ({"suite": []}, "pipeline.suite"),
        ({"suites": ["suites/sum.yaml"]}, "suites/sum.yaml"),
        ({"contract": "none.yaml"}, "none.yaml"),
        ({"batch_size": 0}, "pipeline.batch_size"),
    ],
)
def test_a_fault_is_named_before_anything_begins(
    recipe: Path, pipeline: dict[str, Any], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        load_pipeline(write(recipe, pipeline))
    assert what in f"{error.value.what} {error.value.why}"
    for command in (["run"], ["config", "check"]):
        assert run([*command, str(recipe), "--json"]) == 2
        assert what in str(json.loads(capsys.readouterr().out)["error"])

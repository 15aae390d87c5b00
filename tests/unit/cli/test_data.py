from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from raytrain.cli.data import app
from raytrain.errors import ConfigError, IntegrityError

RUNNER = CliRunner()


def invoke(*arguments: str) -> Any:
    result = RUNNER.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def source(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], {"question": "x"}]))
    return place


def test_prepare_from_a_recipe(tmp_path: Path, source: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {{}}\ndata:\n  sources: {source}\nstorage:\n  path: {tmp_path / 'storage'}\n")
    result = json.loads(invoke("prepare", str(recipe), "data.val_fraction=0", "--json").stdout)
    assert result["splits"] == {"train": 60, "val": 0, "test": 0}
    assert result["rejected"] == {"missing_column": 1}
    assert result["dropped"] == {"exact_duplicates": 1, "near_duplicates": 0}
    assert result["artifact"].startswith(str(tmp_path / "storage" / "datasets"))
    assert result["digest"].startswith("sha256:")
    assert result["cached"] is False
    again = invoke("prepare", str(recipe), "data.val_fraction=0")
    assert "was there already" in again.stdout
    assert "already prepared" in again.stderr


def test_prepare_from_a_path_and_show(tmp_path: Path, source: Path, home: Path) -> None:
    result = json.loads(
        invoke(
            "prepare", "--source", str(source), "data.max_rows=10", "data.sources.0.licence=MIT", "--json"
        ).stdout
    )
    assert result["artifact"].startswith(str(home / "storage"))
    assert sum(result["splits"].values()) == 10
    shown = invoke("show", result["artifact"])
    assert shown.stdout.startswith("# Data card")
    assert json.loads(invoke("show", result["artifact"], "--json").stdout)["statistics"]["rows"]["kept"] == 10


def test_output_overrides_the_recipe(tmp_path: Path, source: Path) -> None:
    result = json.loads(
        invoke("prepare", "--source", str(source), "--output", str(tmp_path / "there"), "--json").stdout
    )
    assert result["artifact"].startswith(str(tmp_path / "there" / "datasets"))


def test_what_to_prepare_must_be_said_once(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to prepare"):
        invoke("prepare")
    with pytest.raises(ConfigError, match="both the recipe"):
        invoke("prepare", str(tmp_path / "recipe.yaml"), "--source", str(source))
    with pytest.raises(IntegrityError):
        invoke("show", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no dataset at"):
        invoke("show", str(tmp_path / "nope"))


def test_importing_the_group_is_light() -> None:
    heavy = ("pyarrow", "pydantic", "numpy")
    code = f"import sys, raytrain.cli.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

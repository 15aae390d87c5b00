"""`raytrain check` on the command line: one object under --json, a table and one verdict line without, exit 5."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.cli.main import run

pytestmark = pytest.mark.whole


@pytest.fixture
def recipe(tiny_llama: Path, rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = tmp_path / "mine.yaml"
    values = {
        "model": {"base_model": str(tiny_llama)},
        "data": {"sources": str(tmp_path / "rows.jsonl"), "near_duplicate_threshold": None},
        "adapter": {"lora_rank": 4},
    }
    place.write_text(yaml.safe_dump(values))
    return place


def test_a_failed_check_is_exit_5_with_an_error_in_its_one_object(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step is too few to know two rows by heart."""
    assert run(["check", "overfit", str(recipe), "--rows", "2", "--steps", "1", "--json"]) == 5
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert not found["passed"]
    assert found["error"].keys() == {"kind", "what", "why", "fix"}
    assert found["error"]["kind"] == "integrity"
    assert [one["name"] for one in found["findings"]] == ["loss", "exact match"]
    assert captured.err == "", "progress is for people"


def test_a_person_sees_a_table_and_one_verdict_line(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "overfit", str(recipe), "--rows", "2", "--steps", "1"]) == 5
    captured = capsys.readouterr()
    assert "before: loss" in captured.err
    lines = captured.out.strip().splitlines()
    assert lines[-1].startswith("check overfit FAILED: 2 failed")
    assert lines[-2].strip().startswith("fix: ")
    assert any("nats per target in 1 steps over 2 rows" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loss", "resume", "overfit", "reproducibility", "pipeline"])
def test_a_faulty_recipe_is_exit_2(recipe: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(["check", name, str(recipe), "train.learning_rat=1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "config"


def test_the_support_matrix_is_printed_and_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "support", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_feature = {row["feature"]: row["cells"] for row in found["rows"]}
    assert by_feature["adapter.method qlora"]["zero3"]["status"] == "refused"
    assert all(set(cells) == set(found["strategies"]) for cells in by_feature.values())
    assert run(["check", "support"]) == 0
    told = capsys.readouterr().out
    for feature, cells in by_feature.items():
        assert feature in told, "no bracket of it is taken for markup"
        for cell in cells.values():
            assert cell["reason"] in told


def test_help_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nfrom raytrain.cli.main import run\nrun(['check', '--help'])\n"
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"

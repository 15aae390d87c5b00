"""Prompts out of an evaluation: which, how many, and that the check takes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import evaluation_of, records_with
from trained import train_tiny

from raytrain.cli.main import run
from raytrain.errors import ConfigError, IntegrityError
from raytrain.release.bundle.parity.prompts import evaluation_prompts, is_evaluation
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location


def test_every_suite_is_asked_evenly_spaced(tmp_path: Path) -> None:
    silent = [replace(one, prompt="") for one in records_with([1.0])]
    suites = {"sums": records_with([1.0] * 100), "few": records_with([0.0] * 3), "silent": silent}
    found = evaluation_of(tmp_path / "evaluation", suites)
    prompts, note = evaluation_prompts(Location(str(tmp_path / "evaluation")), 10)
    assert [one.id for one in prompts if one.id.startswith("sums")] == [
        f"sums: {i}" for i in (0, 20, 40, 60, 80)
    ]
    assert [one.id for one in prompts if one.id.startswith("few")] == ["few: 0", "few: 1", "few: 2"]
    asked = {one.id: one.asked for one in prompts}
    assert len(asked) == 8 and asked["sums: 20"] == "Question 20: what is 20 + 1?"
    assert note == f"8 of 103 prompts of the evaluation {found.artifact.digest}"


def test_what_is_no_evaluation_is_told(tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("The\n")
    assert not is_evaluation(str(tmp_path / "asked.txt")) and is_evaluation("s3://bucket/evaluation")
    place = Location(str(tmp_path / "rows"))
    with ArtifactWriter(place, kind="dataset") as writer:
        writer.commit()
    assert is_evaluation(str(place))
    with pytest.raises(IntegrityError, match="is a dataset"):
        evaluation_prompts(place, 4)
    evaluation_of(tmp_path / "silent", {"sums": [replace(one, prompt="") for one in records_with([1.0])]})
    with pytest.raises(ConfigError, match="holds no prompt"):
        evaluation_prompts(Location(str(tmp_path / "silent")), 4)


@pytest.mark.slow
def test_the_check_asks_what_the_evaluation_asked(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = train_tiny(tiny_llama, tmp_path / "adapter", target_modules=["q_proj"])
    found = evaluation_of(tmp_path / "evaluation", {"sums": records_with([1.0] * 5)})
    given = ["--prompts", str(tmp_path / "evaluation"), "export_check.evaluation_items=3", "--json"]
    assert run(["export", str(adapter), "--out", str(tmp_path / "bundle"), *given]) == 0
    check = json.loads(capsys.readouterr().out)["check"]
    assert [one["id"] for one in check["prompts"]] == ["sums: 0", "sums: 1", "sums: 3"]
    assert check["notes"] == [f"3 of 5 prompts of the evaluation {found.artifact.digest}"]
    assert check["formats"]["adapter"]["num_tokens"] > 0

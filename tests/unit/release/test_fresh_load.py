"""A bundle's model, loaded in a process of its own: what it is started with, and how it is told of where it fails."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from releases import Trained, make_release, write_adapter

from raytrain.errors import IntegrityError, MachineError, PlatformError, RefusedError
from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.release import fresh_load
from raytrain.release.bundle.description import BundleDescription, read_description
from raytrain.release.fresh_load import load_in_fresh_process
from raytrain.storage.location import Location


@pytest.fixture
def description(tmp_path: Path) -> BundleDescription:
    return read_description(make_release(tmp_path / "bundle", Trained()).path)


def stand_in(place: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that is started as Python would be."""
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(place))


@pytest.mark.parametrize(
    ("script", "kind", "told"),
    [
        ("echo 'Traceback' >&2; echo 'KeyError: q_proj' >&2; exit 1", IntegrityError, "KeyError: q_proj"),
        ("exit 3", IntegrityError, "it said nothing"),
        ("kill -SEGV $$", IntegrityError, "a signal 11 ended it"),
        ("kill -KILL $$", MachineError, "a signal 9 ended it"),
        ("kill -TERM $$", MachineError, "a signal 15 ended it"),
        ("exec sleep 60", MachineError, "after 0.5 s it was still loading"),
    ],
)
def test_only_what_it_says_itself_is_held_against_a_bundle(
    script: str,
    kind: type[PlatformError],
    told: str,
    description: BundleDescription,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(tmp_path / "python", script, monkeypatch)
    if "sleep" in script:
        monkeypatch.setattr(fresh_load, "_LOAD_TIMEOUT_S", 0.5)
    with pytest.raises(kind) as caught:
        load_in_fresh_process(tmp_path / "bundle", description, Location("cache"))
    assert told in caught.value.why
    assert caught.value.exit_code == (4 if kind is MachineError else 5)
    if kind is MachineError:
        assert "leave --load out" in caught.value.fix


def test_no_hub_is_asked_and_no_folder_of_the_caller(
    description: BundleDescription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "python", 'echo "offline $HF_HUB_OFFLINE $*"', monkeypatch)
    told = load_in_fresh_process(tmp_path / "bundle", description, Location("cache"))
    assert told.startswith("offline 1 -P -m raytrain.release.loading")
    with pytest.raises(RefusedError, match="cannot be loaded here") as caught:
        load_in_fresh_process(tmp_path, replace(description, formats=("onnx",)), Location("cache"))
    assert caught.value.why == "it holds onnx, and neither adapter nor merged"


@pytest.mark.slow
def test_it_is_loaded_for_real_in_a_process_of_its_own(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Location(str(tmp_path / "cache"))
    found = resolve_base_model(ModelSection(base_model=str(tiny_llama)), cache)
    description = read_description(make_release(tmp_path / "bundle", Trained()).path)
    write_adapter(tmp_path / "adapter", layers=2)
    training = {"base_model": str(tiny_llama), "base_digest": found.digest, "model": {"task": "causal_lm"}}
    (tmp_path / "adapter" / "training.json").write_text(json.dumps(training))
    # Whoever goes back may stand anywhere.
    (tmp_path / "work").mkdir()
    for name in ("random.py", "torch.py"):
        (tmp_path / "work" / name).write_text("raise SystemExit('this is no module of Python')\n")
    monkeypatch.chdir(tmp_path / "work")
    told = load_in_fresh_process(tmp_path, description, cache)
    assert "with the adapter, one token answered" in told
    write_adapter(tmp_path / "adapter", size=48, layers=2)
    (tmp_path / "adapter" / "training.json").write_text(json.dumps(training))
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        load_in_fresh_process(tmp_path, description, cache)
    (tmp_path / "adapter" / "training.json").write_text(
        json.dumps({**training, "base_model": "no/where/at/all"})
    )
    with pytest.raises(IntegrityError, match="cannot be loaded") as caught:
        load_in_fresh_process(tmp_path, description, cache)
    assert "no/where/at/all" in caught.value.why and "tried the path" in caught.value.why

"""Frozen twice they are one; whatever changes is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from suites import SUMS, write_rows, write_suite

from raytrain.errors import ConfigError, IntegrityError
from raytrain.evaluation.answering.settings import settings_from
from raytrain.evaluation.baseline import Finding, baseline_place, freeze, verify
from raytrain.evaluation.evaluate import evaluate
from raytrain.evaluation.items import Suite, load_items
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.evaluation.suite import load_suite
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy, which a test may change."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def evaluated(model: Path, *files: Path, fresh: bool = False) -> Evaluation:
    suites = [load_items(load_suite(file)) for file in files]
    found = evaluate(str(model), suites, settings_from([]), fresh=fresh).evaluation
    assert found is not None
    return found


@pytest.fixture
def baseline(model: Path, tmp_path: Path) -> Location:
    place = Location.parse(tmp_path / "storage" / "base")
    freeze(evaluated(model, write_suite(tmp_path, "sums"), write_suite(tmp_path, "choices")), place)
    return place


def changed(place: Location, *suites: Suite) -> list[Finding]:
    return [one for one in verify(place, suites) if one.standing == "changed"]


def test_frozen_twice_it_is_the_same(model: Path, baseline: Location, tmp_path: Path) -> None:
    first = open_evaluation(baseline)
    anew = evaluated(model, tmp_path / "sums.yaml", tmp_path / "choices.yaml", fresh=True)
    again = freeze(anew, Location.parse(tmp_path / "storage" / "again"))
    assert again.digest == first.artifact.digest == freeze(anew, baseline).digest
    assert first.artifact.kind == "baseline" and first.timings is not None
    assert first.report.model.base_digest == first.artifact.manifest.parents["base_model"]
    assert first.artifact.manifest.provenance["git"]
    record = first.records["sums"][0]
    assert record.prompt and record.output and record.score is not None
    assert [one.standing for one in verify(baseline)] == ["same"] * 6


def test_a_baseline_is_never_replaced(model: Path, baseline: Location, tmp_path: Path) -> None:
    other = evaluated(model, tmp_path / "sums.yaml")
    before = open_evaluation(baseline).artifact.digest
    with pytest.raises(IntegrityError, match="already holds another"):
        freeze(other, baseline)
    assert open_evaluation(baseline).artifact.digest == before


def reword(folder: Path) -> None:
    rows = [dict(row) for row in SUMS[1:]]
    rows[2]["question"] = "What else?"
    write_suite(folder, "sums", [*rows, {"question": "New?", "answer": "1", "topic": "odd"}], items={
        "source": {"path": "sums.jsonl"}})  # fmt: skip


def change_model(folder: Path) -> None:
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "rope_theta": 1.0}))


def change_template(folder: Path) -> None:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        file = folder / "model" / name
        if file.is_file():
            file.write_text(file.read_text().replace("<|im_start|>assistant", "<|im_start|>robot"))


def flip_a_byte(folder: Path) -> None:
    for name in ("suites/sums.parquet", "report.json"):
        file = folder / "storage" / "base" / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))


def touch_the_timings(folder: Path) -> None:
    (folder / "storage" / "base.timings" / "resources.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (reword, ["12 changed"]),
        (lambda folder: write_suite(folder, "sums", SUMS[1:]), ["11 changed", "1 gone: 12"]),
        (
            lambda folder: write_suite(folder, "sums", generation={"max_new_tokens": 6}),
            ["suite sums, generation"],
        ),
        (change_model, ["base model"]),
        (change_template, ["base model", "chat template"]),
        (flip_a_byte, ["file report.json", "file suites/sums.parquet"]),
        (lambda folder: (folder / "storage" / "base" / "more").write_text("x"), ["file more", "was added"]),
        (touch_the_timings, ["timings resources.json"]),
    ],
)
def test_whatever_changes_is_named(
    baseline: Location, tmp_path: Path, change: Callable[[Path], object], told: list[str]
) -> None:
    change(tmp_path)
    now = [load_items(load_suite(tmp_path / "sums.yaml"))]
    found = " ".join(f"{one.thing} {one.detail}" for one in changed(baseline, *now))
    assert all(one in found for one in told), found


def test_what_is_gone_is_told_and_is_no_change(baseline: Location, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "sums.jsonl").unlink()
    gone = {one.thing: one.detail for one in verify(baseline) if one.standing == "not reached"}
    assert list(gone) == [f"model {tmp_path / 'model'}", "suite sums"]
    assert changed(baseline) == []
    assert "data.sources" not in gone["suite sums"]
    assert gone["suite sums"].count(str(tmp_path / "sums.jsonl")) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"generation": {"max_new_tokens": 6}}, "suite sums, generation"),
        ({"items": {"source": {"path": "sums.jsonl"}, "max_items": 4}}, "suite sums, items"),
        ({"suite": "other"}, "suite sums, file"),
        ({"kind": "perplexity"}, "suite sums"),
    ],
)
def test_an_edited_suite_file_is_a_change(
    baseline: Location, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    write_suite(tmp_path, "sums", **changes)
    assert [one.thing for one in changed(baseline)] == [told]
    write_suite(tmp_path, "sums", description="Other words for people.")
    assert changed(baseline) == []


def test_a_suite_file_that_is_gone_is_told_and_its_rows_are_looked_at(
    baseline: Location, tmp_path: Path
) -> None:
    (tmp_path / "sums.yaml").rename(tmp_path / "moved.yaml")
    found = {one.thing: one.standing for one in verify(baseline)}
    assert (found["suite sums, file"], found["suite sums"]) == ("not reached", "same")
    moved = [load_items(load_suite(tmp_path / "moved.yaml"))]
    assert {one.standing for one in verify(baseline, moved)} == {"same"}
    write_rows(tmp_path / "sums.jsonl", SUMS[1:])
    assert "suite sums, items" in [one.thing for one in changed(baseline)]


def test_where_a_suite_file_lies_is_in_no_digest(model: Path, baseline: Location, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    files = [write_suite(tmp_path / "elsewhere", name) for name in ("sums", "choices")]
    other = evaluated(model, *files, fresh=True)
    kept = other.artifact.manifest.provenance["suite_files"]
    assert kept == {file.stem: str(file) for file in files}
    assert freeze(other, baseline).digest == open_evaluation(baseline).artifact.digest
    overridden = load_suite(files[0], ["items.max_items=3"])
    assert (load_suite(files[0]).file, overridden.file) == (files[0], None)


@pytest.fixture
def of_outputs(tmp_path: Path) -> Location:
    """A baseline of answers that were written elsewhere."""
    outputs = [{"item_id": str(i), "output": str(i + 2)} for i in range(1, 13)]
    found = evaluated(write_rows(tmp_path / "outputs.jsonl", outputs), write_suite(tmp_path, "sums"))
    place = Location.parse(tmp_path / "of-outputs")
    freeze(found, place)
    return place


def test_a_file_of_outputs_is_hashed_again(of_outputs: Location, tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    thing = f"outputs {file}"
    assert thing in [one.thing for one in verify(of_outputs) if one.standing == "same"]
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"3"', b'"4"', 1))
    (found,) = changed(of_outputs)
    assert found.thing == thing
    assert found.detail.startswith("was ")
    file.unlink()
    assert [one.thing for one in verify(of_outputs) if one.standing == "not reached"] == [thing]
    file.write_bytes(content)
    assert changed(of_outputs) == []


def test_worked_examples_that_are_gone_are_not_reached(model: Path, tmp_path: Path) -> None:
    shots = write_rows(tmp_path / "shots.jsonl", [{"question": f"{i}?", "answer": "1"} for i in range(3)])
    few = {"source": {"path": "shots.jsonl"}, "num_shots": 1}
    prompt = {"mode": "completion", "template": "{question}", "few_shot": few}
    place = Location.parse(tmp_path / "base")
    freeze(evaluated(model, write_suite(tmp_path, "sums", prompt=prompt)), place)
    shots.unlink()
    (found,) = [one for one in verify(place) if one.standing != "same"]
    assert (found.thing, found.standing) == ("suite sums", "not reached")


def test_what_is_no_baseline_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is not an artifact"):
        verify(Location.parse(tmp_path))
    one = evaluated(model, write_suite(tmp_path, "sums"))
    with pytest.raises(IntegrityError, match="is no baseline"):
        verify(one.artifact.location)
    for name in ("", "a/b", "..", ".x"):
        with pytest.raises(ConfigError):
            baseline_place(Location.parse(tmp_path), name)


def test_damage_is_a_change_and_never_not_reached(tiny_llama: Path, tmp_path: Path) -> None:
    with ArtifactWriter(Location.parse(tmp_path / "model"), kind="model") as writer:
        shutil.copytree(tiny_llama, writer.path, dirs_exist_ok=True)
        writer.commit()
    place = Location.parse(tmp_path / "base")
    freeze(evaluated(tmp_path / "model", write_suite(tmp_path, "sums", items=WITH_ID)), place)
    assert changed(place) == []
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    write_suite(tmp_path, "sums", [*SUMS, SUMS[0]], items=WITH_ID)
    found = {one.thing: one.detail for one in changed(place)}
    assert set(found) == {f"model {tmp_path / 'model'}", "suite sums"}
    assert "was changed" in found[f"model {tmp_path / 'model'}"] and "stands twice" in found["suite sums"]


WITH_ID = {"source": {"path": "sums.jsonl"}, "id": "question"}


@pytest.mark.slow
def test_a_baseline_whose_manifest_is_damaged_is_not_replaced(
    model: Path, baseline: Location, tmp_path: Path
) -> None:
    manifest = baseline.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("sha256", "sha257", 1))
    records = (baseline.path / "suites" / "sums.parquet").read_bytes()
    with pytest.raises(IntegrityError, match="already holds another"):
        freeze(evaluated(model, tmp_path / "sums.yaml"), baseline)
    assert (baseline.path / "suites" / "sums.parquet").read_bytes() == records


def test_timings_belong_to_their_baseline(model: Path, baseline: Location, tmp_path: Path) -> None:
    shutil.rmtree(baseline.path)  # by hand, its timings left lying
    freeze(evaluated(model, tmp_path / "sums.yaml"), baseline)
    frozen = open_evaluation(baseline)
    assert frozen.timings is not None and set(frozen.timings.seconds) == {"sums"}
    shutil.rmtree(tmp_path / "storage" / "base.timings")
    assert [one.thing for one in verify(baseline) if one.standing == "no digest"] == ["timings"]


def test_a_suite_that_it_has_not_is_refused(baseline: Location, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no suite texts"):
        verify(baseline, [load_items(load_suite(write_suite(tmp_path, "texts")))])

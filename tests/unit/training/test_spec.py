from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raytrain.config.document import RECIPE as RECIPE_FORM
from raytrain.errors import ConfigError
from raytrain.pipeline.section import WholeSpec
from raytrain.runs.record_types import RunRecord
from raytrain.runs.run_ids import choose_run_id
from raytrain.training.builder import RunSpecBuilder
from raytrain.training.section import TrainSection
from raytrain.training.spec import RunSpec, load_spec

RECIPE: dict[str, Any] = {
    "model": {"base_model": "some/model"},
    "data": {"sources": ["rows.jsonl"]},
    "adapter": {"lora_rank": 8},
    "train": {"learning_rate": 1e-3},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    place = tmp_path / "mine.yaml"
    place.write_text(yaml.safe_dump(RECIPE))
    return place


@pytest.mark.parametrize(
    "override",
    [
        "scaling.num_workers=4",
        "scaling.num_workers=[1,4]",
        "scaling.max_failures=0",
        "storage.path=/elsewhere",
        "storage.mirror=/drive",
        "tracking.tensorboard=false",
        "train.log_every=10",
        "train.save_every=7",
        "train.save_every_minutes=1",
        "train.keep_last_n=5",
        "train.keep_best_k=2",
        "train.max_bad_steps=9",
    ],
)
def test_where_and_how_often_does_not_change_the_run(recipe: Path, override: str) -> None:
    assert load_spec(recipe, [override]).run_id == load_spec(recipe).run_id


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "model.base_model=other/model",
        "model.revision=main2",
        "data.sources=other.jsonl",
        "data.val_fraction=0.2",
        "data.max_seq_len=64",
        "adapter.lora_rank=4",
        "adapter.method=full",
        "train.learning_rate=2e-3",
        "train.schedule=cosine",
        "train.num_epochs=2",
        "train.max_steps=10",
        "train.global_batch_size=32",
        "train.seed=1",
        "train.precision=bfloat16",
        "train.hooks=[a:B]",
    ],
)
def test_what_decides_the_result_changes_the_run(recipe: Path, override: str) -> None:
    changed, spec = load_spec(recipe, [override]), load_spec(recipe)
    assert changed.identity != spec.identity
    assert changed.run_id != spec.run_id


def test_the_id_reads_as_name_and_digest(recipe: Path) -> None:
    spec = load_spec(recipe)
    assert spec.name == "mine"
    assert spec.run_id == f"mine-{spec.identity.removeprefix('sha256:')[:8]}"


def test_a_resolved_recipe_gives_the_same_run(recipe: Path, tmp_path: Path) -> None:
    spec = load_spec(recipe, ["train.schedule=cosine"])
    again = tmp_path / "resolved.yaml"
    again.write_text(spec.to_yaml())
    assert load_spec(again) == spec


def test_the_builder_builds_what_the_recipe_says(recipe: Path) -> None:
    built = (
        RunSpecBuilder("mine")
        .model("some/model")
        .data("rows.jsonl")
        .lora(8)
        .train(learning_rate=1e-3)
        .build()
    )
    assert built == load_spec(recipe)
    assert built.run_id == load_spec(recipe).run_id
    wide = (
        RunSpecBuilder("mine")
        .model("some/model", revision="v1")
        .data("rows.jsonl", {"path": "b.jsonl", "licence": "MIT"}, val_fraction=0.1)
        .full()
        .train(learning_rate=1e-3)
        .train(seed=3)
        .scaling(2, use_gpu=True)
        .storage("/s", mirror="/m")
        .tracking(tensorboard=False)
        .build()
    )
    expected = {
        "name": "mine",
        "model": {"base_model": "some/model", "revision": "v1"},
        "data": {"sources": ["rows.jsonl", {"path": "b.jsonl", "licence": "MIT"}], "val_fraction": 0.1},
        "adapter": {"method": "full"},
        "train": {"learning_rate": 1e-3, "seed": 3},
        "scaling": {"num_workers": 2, "use_gpu": True},
        "storage": {"path": "/s", "mirror": "/m"},
        "tracking": {"tensorboard": False},
    }
    assert wide == RunSpec.model_validate(expected)


def test_the_builder_refuses_as_a_recipe_does() -> None:
    with pytest.raises(ConfigError, match=r"RunSpecBuilder\('x'\)") as caught:
        RunSpecBuilder("x").model("m").data("r.jsonl").train(learning_rat=1).build()
    assert caught.value.fix == "did you mean `learning_rate`?"


def test_float16_needs_a_gpu(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"float16 needs scaling\.use_gpu"):
        load_spec(recipe, ["train.precision=float16"])
    assert load_spec(recipe, ["train.precision=float16", "scaling.use_gpu=true"]).scaling.use_gpu


@pytest.mark.parametrize(
    ("settings", "num_rows", "num_steps"),
    [
        ({"num_epochs": 1, "global_batch_size": 8}, 23, 3),
        ({"num_epochs": 2, "global_batch_size": 8}, 23, 6),
        ({"num_epochs": 1.5, "global_batch_size": 8}, 23, 5),
        ({"num_epochs": 0.01, "global_batch_size": 8}, 23, 1),
        ({"num_epochs": 3, "global_batch_size": 64}, 23, 3),
        ({"num_epochs": 3, "global_batch_size": 8, "max_steps": 4}, 23, 4),
        ({"num_epochs": 1, "global_batch_size": 8}, 24, 3),
    ],
)
def test_steps_of_a_run(settings: dict[str, Any], num_rows: int, num_steps: int) -> None:
    assert TrainSection(**settings).num_steps(num_rows) == num_steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1e-4, "min_learning_rate": 1e-3}, "lies above learning_rate"),
        ({"early_stopping_patience": 2}, "set eval_every"),
        ({"result": "best"}, "result: best needs eval_every"),
        ({"hooks": ["no_colon"]}, "must read module:Class"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSection(**settings)


def record(run_id: str) -> RunRecord:
    return RunRecord(run_id, "train", "a", "failed", {}, "sha256:x", 0.0)


@pytest.mark.parametrize(
    ("known", "fresh", "chosen"),
    [
        ([], False, "a-1"),
        ([], True, "a-1"),  # nothing to stand beside
        (["a-1"], False, "a-1"),
        (["a-1"], True, "a-1.2"),
        (["a-1", "a-1.2"], False, "a-1.2"),  # the newest is the one that goes on
        (["a-1.2", "a-1"], True, "a-1.3"),
        (["a-1", "a-1.9", "a-1.10"], False, "a-1.10"),
        (["a-1.2"], True, "a-1.3"),
    ],
)
def test_which_run_a_command_means(known: list[str], fresh: bool, chosen: str) -> None:
    assert choose_run_id([record(one) for one in known], "a-1", fresh=fresh) == chosen


@pytest.mark.parametrize(
    ("typed", "meant"), [("serach", "search"), ("pipelin", "pipeline"), ("extend", "extends")]
)
def test_a_misspelt_section_of_another_command_is_told(recipe: Path, typed: str, meant: str) -> None:
    recipe.write_text(yaml.safe_dump({**RECIPE, typed: {}}))
    with pytest.raises(ConfigError) as caught:
        load_spec(recipe)
    assert caught.value.fix == f"did you mean `{meant}`?"


def test_a_recipe_has_these_keys_and_no_others() -> None:
    assert {*RunSpec.model_fields, *RECIPE_FORM.beside} == {*WholeSpec.model_fields, "extends"}

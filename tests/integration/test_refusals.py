"""What cannot work is said, with its exit code, in the time a person waits; and nothing half-written stays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bench import BIN, Bench, Outcome, free_port, run_id_of, write_recipe, write_rows
from inside import Inside

import raytrain


def assert_refused(bench: Bench, recipe: Path, outcome: Outcome, code: int) -> dict[str, str]:
    """The exit code, three whole sentences, a record of the failure, and no artifact that is not whole."""
    assert outcome.code == code, outcome.told()
    error = outcome.error
    assert all(error[name].strip() for name in ("kind", "what", "why", "fix"))
    shown = bench.show(run_id_of(recipe))
    assert shown["run"]["state"] == "failed"
    assert shown["run"]["error"] == error
    assert [use for use in shown["artifacts"] if use["direction"] == "written"] == []
    left = [str(place) for place in (bench.home / "storage").rglob(".staging-*")]
    assert left == [], "something half-written is left"
    return error


def test_more_workers_than_the_cluster_can_ever_place(inside: Inside, recipe: Path) -> None:
    outcome = inside.train(recipe, "scaling.num_workers=64")
    error = assert_refused(inside, recipe, outcome, 4)
    assert "4 of 64 workers" in error["what"]
    assert "1 CPU" in error["why"]
    assert "scaling.num_workers=4" in error["fix"]


def test_fewer_workers_than_the_least_of_a_range(inside: Inside, recipe: Path) -> None:
    outcome = inside.train(recipe, "scaling.num_workers=[5,8]")
    error = assert_refused(inside, recipe, outcome, 4)
    assert "4 of at least 5 workers" in error["what"]
    assert "scaling.num_workers=[4,8]" in error["fix"]


def test_a_gpu_type_that_no_node_has(inside: Inside, recipe: Path) -> None:
    outcome = inside.train(recipe, "scaling.accelerator_type=A100")
    error = assert_refused(inside, recipe, outcome, 4)
    assert "no node of the cluster has a GPU of the type A100" in error["what"]
    assert "none" in error["why"] and "scaling.accelerator_type" in error["fix"]


def test_workers_with_another_raytrain_than_the_driver(
    inside: Inside, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = raytrain.__version__
    monkeypatch.setattr(raytrain, "__version__", "9.9.9")  # here; the workers are processes of the cluster
    error = assert_refused(inside, recipe, inside.train(recipe), 4)
    assert "raytrain 9.9.9 drives this run" in error["what"]
    assert f"of the cluster has raytrain {has}" in error["what"]


def test_nobody_at_the_address(joined: Bench, recipe: Path) -> None:
    """By the command itself, as a person would ask."""
    joined.address = f"127.0.0.1:{free_port()}"
    outcome = joined.train(recipe)
    error = assert_refused(joined, recipe, outcome, 4)
    assert error["kind"] == "cluster"
    assert str(joined.address) in error["what"]
    assert "nobody answered within 10 s" in error["why"]
    assert outcome.seconds < 30, "with the start of the command itself"


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, "refuses the token"),
        ({}, "wants a token, and none was sent"),
    ],
)
def test_a_wrong_token_and_none(joined: Bench, recipe: Path, token: dict[str, str], told: str) -> None:
    joined.environment = token
    outcome = joined.train(recipe)
    error = assert_refused(joined, recipe, outcome, 4)
    assert error["kind"] == "cluster"
    assert error["what"] == f"the cluster at {joined.address} {told}"
    assert "RAY_AUTH_TOKEN" in error["why"] and "copy the cluster's token" in error["fix"]
    asked = subprocess.run(
        [BIN / "python", "-c", f"from raytrain.cluster.token import check_token; check_token({joined.address!r})"],
        env=joined.child_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert f"WrongTokenError: the cluster at {joined.address} {told}" in asked.stderr, (
        "the head itself says so"
    )


@pytest.mark.parametrize(
    ("name", "content", "code", "told"),
    [
        ("empty rows", "", 3, "rows.jsonl"),
        ("all filtered", '{"question": "a?", "answer": "b"}\n' * 3, 3, "reject"),
        ("all too long", '{"question": "Add one", "answer": "%s"}\n' % ("five " * 300), 3, "max_seq_len"),
    ],
)
def test_rows_that_cannot_be_used(
    inside: Inside, tiny_llama: Path, tmp_path: Path, name: str, content: str, code: int, told: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(content)
    data: dict[str, Any] = {"val_fraction": 0.0, "max_seq_len": 64}
    if name == "all filtered":
        data |= {"min_chars": 1000}
    recipe = write_recipe(
        tmp_path / "bad-rows.yaml", model=tiny_llama, rows=rows, data=data, scaling={"num_workers": 1}
    )
    error = assert_refused(inside, recipe, inside.train(recipe), code)
    assert error["kind"] == "data"
    assert told in " ".join(error.values()), error


def test_a_model_that_is_not_there(inside: Inside, rows_file: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "no-model.yaml", model=tmp_path / "nowhere", rows=rows_file)
    outcome = inside.train(recipe)
    error = assert_refused(inside, recipe, outcome, 2)
    assert "nowhere" in error["what"]


def test_a_model_with_corrupt_weights(
    inside: Inside, tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-model"
    shutil.copytree(tiny_llama, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    recipe = write_recipe(tmp_path / "corrupt.yaml", model=broken, rows=rows_file, train={"hooks": []})
    outcome = inside.train(recipe)
    error = assert_refused(inside, recipe, outcome, 5)
    assert error["kind"] == "integrity"
    assert "broken-model" in " ".join(error.values())


def test_missing_rows_are_refused_and_once_there_the_same_command_works(
    inside: Inside, tiny_llama: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    recipe = write_recipe(
        tmp_path / "mended.yaml",
        model=tiny_llama,
        rows=rows,
        data={"val_fraction": 0.0},
        train={"max_steps": 2, "hooks": []},
        scaling={"num_workers": 1},
    )
    error = assert_refused(inside, recipe, inside.train(recipe), 3)
    assert "rows.jsonl` is not there" in error["what"]
    write_rows(rows, [{"question": f"Add {i} and {i}?", "answer": f"{2 * i}."} for i in range(9)])
    outcome = inside.train(recipe)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["run_id"] == run_id_of(recipe)

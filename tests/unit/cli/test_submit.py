"""`raytrain submit`, as far as it goes without a cluster. With one: tests/integration/test_submit.py."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from commands import Told

pytestmark = pytest.mark.whole


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "1?", "answer": "2"}) + "\n")
    (tmp_path / "base.yaml").write_text("model: {base_model: tiny}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\ndata: {sources: rows.jsonl}\n")
    (tmp_path / ".gitignore").write_text("*.jsonl\nbase.yaml\nother.bin\n")
    (tmp_path / "other.bin").write_bytes(b"x" * 10_000)
    return "mine.yaml"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["tarin", "mine.yaml"], "did you mean `train`?"),
        (["train", "absent.yaml"], "absent.yaml"),
        (["train", "mine.yaml", "train.lerning_rate=1"], "did you mean `learning_rate`?"),
        (["train", "mine.yaml"], "add --address"),
        (["train", "mine.yaml", "--address", "head:port"], "no address of a Jobs API"),
        (["train", "mine.yaml", "--env", "=x"], "a name, =, and a value"),
    ],
)
def test_what_is_refused_before_anything_is_sent(
    told: Told, recipe: str, words: list[str], part: str
) -> None:
    code, found = told("submit", *words)
    assert code == 2
    assert part in json.dumps(found["error"], ensure_ascii=False)


def test_the_package_has_what_the_recipe_names(recipe: str, tmp_path: Path) -> None:
    from raytrain.cli.packaged import packed

    package = packed(["train", recipe, f"data.sources={tmp_path / 'rows.jsonl'}"], tmp_path)
    assert sorted(package.files) == [".gitignore", "base.yaml", "mine.yaml", "rows.jsonl"]


def test_a_folder_that_is_too_large(told: Told, recipe: str, tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as stream:
        stream.truncate(200 * 2**20)
    code, found = told("submit", "train", recipe, "--address", "http://head:8265")
    assert code == 2
    assert "weights.bin 200.0 MiB" in found["error"]["why"]


@pytest.mark.slow
def test_where_nobody_listens(told: Told, recipe: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    code, found = told("submit", "train", recipe, "--address", f"127.0.0.1:{port}")
    assert code == 4
    assert found["error"]["what"] == f"no Ray cluster answers at http://127.0.0.1:{port}"

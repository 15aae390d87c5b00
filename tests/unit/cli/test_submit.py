"""`raytrain submit`, as far as it goes without a cluster. With one: tests/integration/test_submit.py."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from commands import Told
from suites import SUMS, write_rows, write_suite

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
        (["evaluate", "RUN", "--", "--suite", "absent.yaml"], "absent.yaml"),
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


@pytest.mark.parametrize(
    "template", ["{{ bos }}" * 40, "{% for one in messages[1:] %}**{{ one }}**{% endfor %}"]
)
def test_texts_that_can_be_no_names_of_files_are_passed_over(
    recipe: str, tmp_path: Path, template: str
) -> None:
    from raytrain.cli.packaged import packed

    (tmp_path / "base.yaml").write_text(
        f"model: {{base_model: tiny, chat_template: {json.dumps(template)}}}\n"
    )
    assert "rows.jsonl" in packed(["train", recipe], tmp_path).files


@pytest.mark.parametrize(
    "words",
    [
        ["run", "mine.yaml", "pipeline.suites=[suites/texts.yaml]"],
        ["evaluate", "RUN", "--suite", "suites/texts.yaml"],
        ["evaluate", "RUN", "--suite=suites/texts.yaml", "--suite", "suites/texts.yaml"],
    ],
)
def test_rows_of_the_suites_that_are_asked_go_along(recipe: str, tmp_path: Path, words: list[str]) -> None:
    """Where they lie beside the suite, which git leaves out; nothing goes for being called as a suite is."""
    from raytrain.cli.packaged import packed

    few_shot = {"source": {"path": "shots/*.jsonl"}, "num_shots": 1}
    prompt = {"mode": "completion", "template": "{question}", "few_shot": few_shot}
    asked = write_suite(tmp_path / "suites", "sums", like="sums", prompt=prompt)
    write_rows(tmp_path / "suites" / "shots" / "some.jsonl", SUMS)
    (tmp_path / "suites" / "texts.yaml").write_text(f"extends: {asked.name}\nsuite: texts\n")
    write_rows(tmp_path / "texts" / "other.jsonl", SUMS)
    of_suite = {f"suites/{name}" for name in ("sums.jsonl", "sums.yaml", "texts.yaml", "shots/some.jsonl")}
    of_recipe = {"base.yaml", "rows.jsonl"} if words[0] == "run" else set()
    assert set(packed(words, tmp_path).files) == {".gitignore", "mine.yaml", *of_suite, *of_recipe}


def test_a_suite_on_the_cluster_alone_is_asked_there(recipe: str, tmp_path: Path) -> None:
    from raytrain.cli.packaged import packed

    package = packed(["evaluate", "RUN", "--suite", "/absent/suite.yaml"], tmp_path)
    assert sorted(package.files) == [".gitignore", "mine.yaml"]


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

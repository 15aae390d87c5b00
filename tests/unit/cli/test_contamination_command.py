from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from evaluations import evaluation_of, records_with

from raytrain.cli.main import run
from raytrain.data.prepare import prepare_dataset
from raytrain.data.section import DataSection
from raytrain.evaluation.baseline import baseline_place, freeze
from raytrain.evaluation.items import load_items
from raytrain.evaluation.records import ItemRecord, table_of
from raytrain.evaluation.suite import load_suite
from raytrain.runs.records import open_records
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.section import StorageSection

pytestmark = pytest.mark.whole


@pytest.fixture
def suite(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    recipe = {
        "suite": "sums",
        "kind": "generation",
        "items": {"source": {"path": str(items)}},
        "prompt": {"mode": "chat", "template": "{question}"},
        "answer": "{answer}",
        "scorer": {"name": "number"},
    }
    place = tmp_path / "suite.yaml"
    place.write_text(yaml.safe_dump(recipe))
    return place


@pytest.fixture
def dataset(tmp_path: Path, rows: list[dict[str, str]]) -> Artifact:
    source = tmp_path / "train.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows[20:], *rows[4:6]]))
    section = DataSection.model_validate(
        {"sources": [{"path": str(source)}], "val_fraction": 0, "near_duplicate_threshold": None}
    )
    return prepare_dataset(section, Location(str(tmp_path / "storage")))


def told(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert run([*map(str, arguments), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_suspects_are_findings(
    tmp_path: Path, suite: Path, dataset: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    report = told(capsys, "contamination", dataset.path, "--suite", suite, "--output", tmp_path / "report")
    assert [one["id"] for one in report["suspects"]] == ["5", "6"] and report["num_rows"] == 42
    found = open_artifact(Location(str(tmp_path / "report")), kind="contamination_report")
    assert found.manifest.parents == {"dataset": dataset.digest}
    assert run(["contamination", str(dataset.path), "--suite", str(suite)]) == 0
    out = capsys.readouterr()
    assert "2 of 20 items are suspected, of 42 rows" in out.out and "rows: 42 read" in out.err


def test_a_run_and_its_adapter_lead_to_their_rows(
    tmp_path: Path, suite: Path, dataset: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Location(str(tmp_path / "adapter"))
    with ArtifactWriter(place, kind="adapter", parents={"dataset": dataset.digest}) as writer:
        (writer.path / "weights").write_text("x")
        writer.commit()
    lost = told(capsys, "contamination", place, "--suite", suite, code=3)
    assert "the rows that" in lost["error"]["what"] and "do not say where" in lost["error"]["why"]
    records = open_records()
    records.create_run("learned-1", kind="train", name="learned", config={})
    records.add_artifact(
        "learned-1", "dataset", "read", "dataset", dataset.digest, str(dataset.location), parents={}
    )
    records.close()
    for source in (place, "learned"):
        assert told(capsys, "contamination", source, "--suite", suite)["num_suspects"] == 2
    shutil.rmtree(dataset.path)
    gone = told(capsys, "contamination", place, "--suite", suite, code=3)
    assert gone["error"]["kind"] == "data"


def test_scores_without_suspects(
    tmp_path: Path, suite: Path, dataset: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    items = load_items(load_suite(suite)).items
    records = [
        ItemRecord(one.id, one.digest(), "p", "o", one.references, float(one.id in ("5", "6")))
        for one in items
    ]
    pq.write_table(table_of(records), tmp_path / "records.parquet")
    arguments = ("contamination", dataset.path, "--suite", suite, "--records")
    scores = told(capsys, *arguments, tmp_path / "records.parquet")["scores"]
    assert scores["with_all"]["mean"] == 0.1 and scores["without_suspects"]["mean"] == 0.0
    assert scores["suspects_alone"]["num_items"] == 2
    pq.write_table(table_of(records[:3]), tmp_path / "few.parquet")
    assert "of other items" in told(capsys, *arguments, tmp_path / "few.parquet", code=3)["error"]["what"]
    (tmp_path / "torn.parquet").write_text("no")
    assert "no item records" in told(capsys, *arguments, tmp_path / "torn.parquet", code=3)["error"]["what"]


def test_the_loss_ratio_of_two_models(
    tmp_path: Path, suite: Path, dataset: Artifact, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("contamination", dataset.path, "--suite", suite)
    report = told(capsys, *arguments, "--model", tiny_llama, "--base", tiny_llama)
    table = pq.read_table(Path(report["report"]) / "items.parquet").to_pylist()
    assert all(row["loss_ratio"] == row["answer_loss_ratio"] == 1.0 and row["min_k"] < 0 for row in table)
    assert any("99 are needed" in note for note in report["notes"])
    assert "is no adapter" in told(capsys, *arguments, "--model", tiny_llama, code=2)["error"]["what"]
    assert told(capsys, *arguments, "--base", tiny_llama, code=2)["error"]["what"] == "--base stands alone"


def test_what_cannot_be_is_refused(
    tmp_path: Path, suite: Path, dataset: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = told(capsys, "contamination", "nowhere", "--suite", suite, code=2)
    assert "is no dataset, run or adapter" in nowhere["error"]["what"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    told(capsys, "contamination", dataset.path, "--suite", suite, "--output", tmp_path / "mine", code=2)
    assert (tmp_path / "mine" / "thesis.tex").is_file()


# variants


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_variants_of_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, source = tmp_path / "out.jsonl", tmp_path / "rows.jsonl"

    def made(*arguments: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        result = told(capsys, "variants", *arguments, "--output", out, "--replace")
        return result, lines_of(out)

    first = tmp_path / "originals.jsonl"
    _, rows = made("word-problems", "--count", 30, "--originals", first, "--changes", "names,numbers")
    assert [row["original_id"] for row in rows] == [row["id"] for row in lines_of(first)]
    assert rows[0]["changes"] == ["names", "numbers"]
    result, rows = made("annotated", first, "--id", "id", "--seed", 3)
    assert (
        result["variants"] + sum(result["left_out"].values()) == 30 and result["variants"] == len(rows) > 10
    )
    assert {row["original_id"] for row in rows} <= {row["id"] for row in lines_of(first)}
    source.write_text(json.dumps({"question": "Why?", "choices": ["x", "y", "z"], "answer": 2}) + "\n")
    _, rows = made("choices", source)
    assert rows[0]["original_id"] == "1" and rows[0]["choices"][rows[0]["answer"]] == "z"
    source.write_text(
        json.dumps({"code": "def f(a):\n    b = a\n    return b\n", "tests": "assert f(2) == 2"}) + "\n"
    )
    _, rows = made("code", source)
    assert rows[0]["changes"] == ["rename", "dead_code"]
    _, rows = made("fresh", "--date", "2026-03-01", "--count", 5)
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("row", "kind", "what"),
    [
        ({"question": "Why?"}, "annotated", "row 1 has no `answer`"),
        ({"question": 3, "answer": "#### 1"}, "annotated", "row 1: `question` is no text"),
        ({"question": "Why?", "answer": "#### 1"}, "annotated", "no row became a variant"),
        ({"question": "Why?", "choices": "x", "answer": 0}, "choices", "no list of texts"),
        ({"question": "Why?", "choices": ["x", "y"], "answer": 2}, "choices", "no choice's number"),
    ],
)
def test_rows_that_do_not_fit_are_data_faults(
    tmp_path: Path, row: dict[str, Any], kind: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(row) + "\n")
    assert what in told(capsys, "variants", kind, source, "--output", out, code=3)["error"]["what"]
    assert not out.exists() and list(tmp_path.glob(".out*")) == []


def test_unknown_changes_and_dates_are_usage_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    known = told(
        capsys, "variants", "word-problems", "--originals", out, "--output", out, "--changes", "name", code=2
    )
    assert "did you mean `names`" in known["error"]["fix"]
    told(capsys, "variants", "fresh", "--date", "soon", "--output", out, code=2)


def test_no_output_is_written_over_an_input_or_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, link = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    text = json.dumps({"question": "Why?", "choices": ["x", "y", "z"], "answer": 2}) + "\n"
    source.write_text(text)
    link.symlink_to(source)
    for kind in ("choices", "annotated", "code"):
        for read, written in ((source, source), (source, link), (tmp_path / "r*.jsonl", source)):
            refused = told(capsys, "variants", kind, read, "--output", written, "--replace", code=2)["error"]
            assert "is read and would be written" in refused["what"] and source.read_text() == text
    told(capsys, "variants", "choices", source, "--output", out)
    made = out.read_text()
    dated = ("--date", "2026-03-01", "--count", 3)
    for arguments in (("choices", source), ("fresh", *dated), ("word-problems", "--originals", link)):
        refused = told(capsys, "variants", *arguments, "--output", out, code=2)["error"]
        assert "is there already" in refused["what"] and "--replace" in refused["fix"]
        assert (out.read_text(), source.read_text()) == (made, text)
    new = tmp_path / "new.jsonl"
    told(capsys, "variants", "word-problems", "--originals", new, "--output", out, code=2)
    assert not new.exists()
    twice = told(capsys, "variants", "word-problems", "--originals", new, "--output", new, code=2)["error"]
    assert "for two outputs" in twice["what"]
    told(capsys, "variants", "fresh", *dated, "--output", out, "--replace")
    assert len(lines_of(out)) == 3
    folder = told(capsys, "variants", "fresh", *dated, "--output", tmp_path, "--replace", code=2)["error"]
    assert "is a folder" in folder["what"]


def test_the_drop_of_two_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def written(name: str, scores: list[float], *, paired: bool) -> Path:
        records = [
            ItemRecord(
                f"{i}{'-v0' if paired else ''}",
                "d",
                "p",
                "o",
                ("r",),
                score,
                group=str(i) if paired else None,
            )
            for i, score in enumerate(scores)
        ]
        pq.write_table(table_of(records), tmp_path / name)
        return tmp_path / name

    first = written("a.parquet", [1.0] * 50, paired=False)
    second = written("b.parquet", [1.0] * 30 + [0.0] * 20, paired=True)
    found = told(capsys, "variants", "drop", first, second)
    assert found["drop"] == pytest.approx(0.4) and found["verdict"]["word"] == "worse"
    assert run(["variants", "drop", str(first), str(second)]) == 0
    assert "a drop of 40.0 points" in capsys.readouterr().out


def test_the_drop_takes_what_compare_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder, a run, a baseline's name; and a suite's name where there are several."""
    before = records_with([1.0] * 50)
    scores = [1.0] * 30 + [0.0] * 20
    after = [replace(one, item_id=f"{one.item_id}-v0", group=one.item_id) for one in records_with(scores)]
    alone = evaluation_of(tmp_path / "alone", {"words": before})
    both = evaluation_of(tmp_path / "both", {"words": before, "words-variants": after})
    records = open_records()
    records.create_run("both-eval-1", kind="evaluate", name="both", config={})
    records.add_artifact(
        "both-eval-1",
        "evaluation",
        "written",
        "evaluation",
        both.artifact.digest,
        str(both.artifact.location),
    )
    records.close()
    freeze(alone, baseline_place(StorageSection().location, "first"))
    drop, of_variants = ("variants", "drop"), ("--variants-suite", "words-variants")
    for originals in (alone.artifact.path, "first", alone.artifact.path / "suites" / "words.parquet"):
        for variants in (both.artifact.path, "both-eval"):
            found = told(capsys, *drop, originals, variants, *of_variants)
            assert found["drop"] == pytest.approx(0.4)
    found = told(capsys, *drop, "both-eval", "both-eval", "--originals-suite", "words", *of_variants)
    assert found["drop"] == pytest.approx(0.4)
    several = told(capsys, *drop, "first", "both-eval", code=2)["error"]
    assert (several["what"], several["why"]) == (
        "both-eval has several suites",
        "it has words, words-variants",
    )
    assert several["fix"] == "name one of these with --variants-suite"
    other = told(capsys, *drop, "first", "both-eval", "--variants-suite", "word", code=2)["error"]
    assert other["what"] == "both-eval has no suite `word`"
    assert told(capsys, *drop, "frist", "both-eval", *of_variants, code=2)["error"]["kind"] == "config"


def test_the_drop_of_word_problems_as_the_guide_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, two suites, answers, and the drop: each command as in docs/contamination.md."""
    rows = {name: tmp_path / f"{name}.jsonl" for name in ("originals", "variants")}
    told(capsys, "variants", "word-problems", "--count", 24, "--originals", rows["originals"], "--output",
         rows["variants"])  # fmt: skip
    runs = {}
    for name, place in rows.items():
        items = {"id": "id"} if name == "originals" else {"id": "id", "group": "original_id"}
        recipe = {
            "suite": name,
            "kind": "generation",
            "items": {"source": {"path": place.name}, **items},
            "prompt": {"mode": "completion", "template": "{question}"},
            "answer": "{answer}",
            "scorer": {"name": "number"},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        made = [json.loads(line) for line in place.read_text().splitlines()]
        right = [{"item_id": row["id"], "output": row["answer"]} for row in made]
        wrong = [{**row, "output": "no"} for row in right[:6]] if name == "variants" else []
        given = tmp_path / f"{name}-outputs.jsonl"
        given.write_text("".join(json.dumps(row) + "\n" for row in [*wrong, *right[len(wrong) :]]))
        runs[name] = told(capsys, "evaluate", given, "--suite", tmp_path / f"{name}.yaml")["run_id"]
    found = told(capsys, "variants", "drop", runs["originals"], runs["variants"])
    assert found["drop"] == pytest.approx(0.25)
    assert found["num_unpaired"] == 0

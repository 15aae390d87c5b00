from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raytrain.data.dataset import SPLITS, read_split, row_as_canonical
from raytrain.data.prepare import PrepareProgress, prepare_dataset
from raytrain.data.section import DataSection
from raytrain.errors import DataError, StorageError
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


def write_rows(place: Path, rows: list[dict[str, Any]]) -> Path:
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def many_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    generator = random.Random(seed)
    words = [f"word{number}" for number in range(500)]
    return [
        {
            "question": " ".join(generator.choices(words, k=20)),
            "answer": " ".join(generator.choices(words, k=20)),
        }
        for _ in range(count)
    ]


def prepare(source: Path, storage: Path, **settings: Any) -> Artifact:
    return prepare_dataset(DataSection(sources=str(source), **settings), Location.parse(storage))


def split_of_rows(artifact: Artifact) -> dict[str, str]:
    return {row_id: split for split in SPLITS for row_id in read_split(artifact, split)["row_id"].to_pylist()}


def test_rows_come_out_in_the_shape_they_should(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    artifact = prepare(write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "storage", val_fraction=0.2)
    assert artifact.kind == "dataset"
    assert set(artifact.manifest.files) == {
        "train.parquet",
        "val.parquet",
        "test.parquet",
        "rejected.jsonl",
        "statistics.json",
        "data_card.md",
    }
    found = [row for split in SPLITS for row in read_split(artifact, split).to_pylist()]
    assert len(found) == len(rows)
    first = next(row for row in found if row["line"] == 1)
    assert row_as_canonical(first) == {
        "messages": [
            {"role": "user", "content": rows[0]["question"]},
            {"role": "assistant", "content": rows[0]["answer"]},
        ]
    }
    assert first["source"] == "rows.jsonl"
    assert first["num_chars"] == len(rows[0]["question"]) + len(rows[0]["answer"])
    assert 0.0 < first["quality"] <= 1.0
    assert artifact.manifest.provenance["sources"][0]["files"][0]["size_bytes"] > 0


def test_all_three_shapes_live_in_one_dataset(tmp_path: Path) -> None:
    shapes = [
        {"text": "Only a text."},
        {"prompt": "A prompt: ", "completion": "and what follows."},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ]
    artifact = prepare(write_rows(tmp_path / "rows.jsonl", shapes), tmp_path / "storage", val_fraction=0.0)
    assert [row_as_canonical(row) for row in read_split(artifact, "train").to_pylist()] == shapes


def test_the_same_input_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    rows = many_rows(3000)
    rows += rows[:50]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = prepare(write_rows(tmp_path / "a" / "rows.jsonl", rows), tmp_path / "one")
    other = prepare(write_rows(tmp_path / "b" / "rows.jsonl", rows), tmp_path / "two")
    assert one.digest == other.digest
    assert one.location.name == other.location.name


def test_a_row_never_changes_split_when_rows_are_added(tmp_path: Path) -> None:
    rows = many_rows(2000)
    settings = {"val_fraction": 0.2, "test_fraction": 0.1}
    few = split_of_rows(
        prepare(write_rows(tmp_path / "few.jsonl", rows[500:1000]), tmp_path / "storage", **settings)
    )
    many = split_of_rows(prepare(write_rows(tmp_path / "many.jsonl", rows), tmp_path / "storage", **settings))
    assert len(few) == 500
    assert {row: many[row] for row in few} == few
    shares = [list(many.values()).count(split) / len(many) for split in SPLITS]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.04)


def test_another_salt_gives_another_split_and_the_same_rows(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", many_rows(400))
    one = split_of_rows(prepare(source, tmp_path / "storage", val_fraction=0.5))
    other = split_of_rows(prepare(source, tmp_path / "storage", val_fraction=0.5, split_salt="x"))
    assert one.keys() == other.keys()
    assert one != other


def test_bad_rows_are_counted_and_kept_with_line_and_reason(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", many_rows(200))
    with source.open("ab") as stream:
        stream.write(b'{"question": "cut\n')
        stream.write(b'{"question": "x", "answer": ""}\n')
        stream.write(b'{"question": "x", "answer": "\\udc00"}\n')
        stream.write(b'{"question": "x", "answer": "\xff"}\n')
        stream.write(json.dumps({"question": "x", "answer": "y" * 5000}).encode() + b"\n")
    artifact = prepare(source, tmp_path / "storage", max_row_chars=1000)
    rejected = [json.loads(line) for line in (artifact.path / "rejected.jsonl").read_text().splitlines()]
    assert [(one["line"], one["reason"]) for one in rejected] == [
        (201, "broken_json"),
        (202, "empty_completion"),
        (203, "invalid_utf8"),
        (204, "invalid_utf8"),
        (205, "too_long"),
    ]
    assert all(one["source"] == "rows.jsonl" and one["detail"] and one["raw"] for one in rejected)
    assert len(rejected[-1]["raw"]) < 2100
    statistics = json.loads((artifact.path / "statistics.json").read_text())
    assert statistics["rows"] == {
        "read": 205,
        "rejected": 5,
        "exact_duplicates": 0,
        "near_duplicates": 0,
        "kept": 200,
    }
    card = (artifact.path / "data_card.md").read_text()
    assert "| rejected: invalid_utf8 | 2 |" in card


def test_too_many_rejected_rows_stop_and_are_saved(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*many_rows(9), {"question": "x", "answer": None}]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "storage")
    assert caught.value.exit_code == 3
    assert "1 of 10 rows were rejected (10.0%)" in caught.value.what
    assert "missing_column" in caught.value.why
    assert "line 10" in caught.value.why
    (saved,) = (tmp_path / "storage" / "datasets").iterdir()
    assert str(saved) in caught.value.fix
    assert json.loads(saved.read_text())["line"] == 10
    assert len(split_of_rows(prepare(source, tmp_path / "storage", max_rejected_fraction=0.1))) == 9


def test_no_usable_row_is_a_data_error(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"frage": "x", "antwort": "y"}])
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "storage", max_rejected_fraction=1.0)
    assert "all 1 were rejected" in caught.value.what
    assert "antwort, frage" in caught.value.why
    assert "data.sources.0.columns" in caught.value.fix
    short = write_rows(tmp_path / "short.jsonl", [{"question": "x", "answer": "y"}])
    with pytest.raises(DataError, match="all 1 were rejected") as caught:
        prepare(short, tmp_path / "storage", min_chars=50)
    assert "lower data.min_chars" in caught.value.fix
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(DataError, match=r"no rows in empty\.jsonl"):
        prepare(empty, tmp_path / "storage")


def test_limits(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [*many_rows(30), {"text": "tiny"}])
    assert len(split_of_rows(prepare(source, tmp_path / "storage", max_rows=12))) == 12
    with pytest.raises(DataError, match="too_short") as caught:
        prepare(source, tmp_path / "storage", min_chars=10, max_rejected_fraction=0.01)
    assert "31 rows" in caught.value.what


def test_duplicates_are_dropped_across_sources_and_shown(tmp_path: Path) -> None:
    rows = many_rows(100)
    near = [{**row, "answer": row["answer"].rsplit(" ", 1)[0] + " changed"} for row in rows[:10]]
    write_rows(tmp_path / "a.jsonl", rows)
    write_rows(tmp_path / "b.jsonl", [*rows[50:60], *near])
    sources = [{"path": str(tmp_path / name), "licence": "MIT"} for name in ("a.jsonl", "b.jsonl")]
    artifact = prepare_dataset(DataSection(sources=sources), Location.parse(tmp_path / "storage"))
    statistics = json.loads((artifact.path / "statistics.json").read_text())
    assert [one["kept"] for one in statistics["sources"]] == [100, 0]
    assert (statistics["rows"]["exact_duplicates"], statistics["rows"]["near_duplicates"]) == (10, 10)
    shown = statistics["samples"]["near_duplicates"][0]
    assert (shown["kept"]["source"], shown["dropped"]["source"]) == ("a.jsonl", "b.jsonl")
    card = (artifact.path / "data_card.md").read_text()
    assert "| b.jsonl | MIT | 20 | 0 | 10 | 10 | 0 |" in card
    assert "### Near-duplicates" in card
    kept_all = prepare_dataset(
        DataSection(sources=sources, near_duplicate_threshold=None), Location.parse(tmp_path / "storage")
    )
    assert len(split_of_rows(kept_all)) == 110


def test_a_dataset_that_is_there_is_returned_at_once(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", many_rows(20))
    told: list[PrepareProgress] = []
    storage = Location.parse(tmp_path / "storage")
    section = DataSection(sources=str(source))
    first = prepare_dataset(section, storage, on_progress=told.append)
    assert {one.phase for one in told} >= {"open", "read", "deduplicate", "write", "done"}
    told.clear()
    again = prepare_dataset(section.model_copy(update={"max_seq_len": 64}), storage, on_progress=told.append)
    assert [one.phase for one in told] == ["open", "cached"]
    assert told[-1].num_rows == 20
    assert again.digest == first.digest
    write_rows(source, many_rows(21))
    assert prepare_dataset(section, storage).digest != first.digest


def test_a_damaged_dataset_is_made_again_and_said_so(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", many_rows(20))
    first = prepare(source, tmp_path / "storage")
    (first.path / "train.parquet").write_bytes(b"rubbish")
    told: list[PrepareProgress] = []
    again = prepare_dataset(
        DataSection(sources=str(source)), Location.parse(tmp_path / "storage"), on_progress=told.append
    )
    assert again.digest == first.digest
    assert any(one.note and "train.parquet" in one.note and "made again" in one.note for one in told)
    assert open_artifact(again.location).digest == first.digest


def test_an_empty_validation_split_is_said(tmp_path: Path) -> None:
    artifact = prepare(
        write_rows(tmp_path / "rows.jsonl", many_rows(2)), tmp_path / "storage", val_fraction=0.001
    )
    assert read_split(artifact, "val").num_rows == 0
    assert "**val is empty:**" in (artifact.path / "data_card.md").read_text()


def test_the_generator_is_a_source(tmp_path: Path) -> None:
    section = DataSection(sources=[{"generator": "tool_calls", "num_rows": 50, "seed": 1}])
    artifact = prepare_dataset(section, Location.parse(tmp_path / "storage"))
    assert len(split_of_rows(artifact)) >= 45


def test_reading_something_else_as_a_dataset_is_refused(tmp_path: Path) -> None:
    artifact = prepare(write_rows(tmp_path / "rows.jsonl", many_rows(5)), tmp_path / "storage")
    (artifact.path / "val.parquet").unlink()
    with pytest.raises(DataError, match="has no val split"):
        read_split(artifact, "val")


@pytest.mark.slow
def test_a_killed_prepare_leaves_nothing_visible(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", many_rows(20_000))
    storage = tmp_path / "storage"
    code = (
        "import sys; from raytrain.data.prepare import prepare_dataset;"
        "from raytrain.data.section import DataSection;"
        "from raytrain.storage.location import Location;"
        "prepare_dataset(DataSection(sources=sys.argv[1]), Location.parse(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(storage)])
    deadline = time.monotonic() + 60
    while not list(storage.glob("datasets/.staging-*/scratch/rows.arrow")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = [one.name for one in (storage / "datasets").iterdir()]
    assert left, "it had nothing staged yet"
    assert all(name.startswith(".staging-") for name in left)
    artifact = prepare(source, storage)
    assert [one.name for one in (storage / "datasets").iterdir()] == [artifact.location.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("count", [3000, 5000, 8000])
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    tmp_path: Path, small_disk: Path, count: int
) -> None:
    source = write_rows(tmp_path / "rows.jsonl", many_rows(count))
    with pytest.raises(StorageError) as caught:
        prepare(source, small_disk)
    assert "No space left" in caught.value.why
    assert list((small_disk / "datasets").iterdir()) == []


def test_a_read_only_folder_is_a_storage_error(small_disk: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", many_rows(5))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError) as caught:
        prepare(source, small_disk)
    assert "read-only" in caught.value.fix

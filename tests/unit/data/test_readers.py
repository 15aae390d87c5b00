from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytrain.data import readers
from raytrain.data.layouts import canonicalise
from raytrain.data.readers import READERS, read_csv, read_json, read_jsonl, read_parquet, suffix_of
from raytrain.data.rows import CanonicalRow, RowFault
from raytrain.data.section import SourceSection
from raytrain.data.sources import find_files, open_sources
from raytrain.errors import ConfigError, DataError

ROW = {"question": "Why?", "answer": "Because."}


def outcomes(rows: Any) -> list[tuple[int, Any]]:
    return [(line, found.reason if isinstance(found, RowFault) else found) for line, found in rows]


def test_jsonl_counts_lines_and_keeps_faults() -> None:
    content = b"\n".join(
        [
            b'\xef\xbb\xbf{"text": "first"}',
            b"",
            b'{"text": "cut of',
            b"[1, 2]",
            b'{"text": "\xff"}',
            b'{"n": ' + b"9" * 5000 + b"}",
            b"[" * 100_000,
            b'{"text": "\\ud800", "n": NaN}\r',
            b'{"text": "last"}',
        ]
    )
    assert outcomes(read_jsonl(io.BytesIO(content)))[:6] == [
        (1, {"text": "first"}),
        (3, "broken_json"),
        (4, "not_an_object"),
        (5, "invalid_utf8"),
        (6, "broken_json"),
        (7, "broken_json"),
    ]
    (line, odd), last = outcomes(read_jsonl(io.BytesIO(content)))[6:]
    assert (line, odd["text"]) == (8, "\ud800")
    assert last == (9, {"text": "last"})


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 64)
    content = b'{"text": "' + b"x" * 1000 + b'"}\n{"text": "next"}\n'
    assert outcomes(read_jsonl(io.BytesIO(content))) == [(1, "too_long"), (2, {"text": "next"})]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"text": "a"}, 3]', [(1, {"text": "a"}), (2, "not_an_object")]),
        (b'{"version": 1, "data": [{"text": "a"}]}', [(1, {"text": "a"})]),
        (b'{"text": "a"}\n{"text": "b"}\n', [(1, {"text": "a"}), (2, {"text": "b"})]),
        (b'[{"text": "a"},\n oops]', [(2, "broken_json")]),
        (b"3", [(1, "not_an_object")]),
        (b"\xff", [(1, "invalid_utf8")]),
        (b"", [(1, "broken_json")]),
    ],
)
def test_json(content: bytes, expected: list[Any]) -> None:
    assert outcomes(read_json(io.BytesIO(content))) == expected


def test_csv_reads_quotes_and_keeps_faults() -> None:
    content = (
        b"\xef\xbb\xbfquestion,answer\n"
        b'"Why,\nnow?",Because.\n'
        b"\n"
        b"too,many,values\n"
        b"\xff,broken\n"
        b"only one\n"
        b"nul\x00,x\n"
    )
    assert outcomes(read_csv(io.BytesIO(content))) == [
        (2, {"question": "Why,\nnow?", "answer": "Because."}),
        (5, "broken_csv"),
        (6, "invalid_utf8"),
        (7, {"question": "only one"}),
        (8, {"question": "nul\x00", "answer": "x"}),
    ]


def test_parquet_with_invalid_utf8_loses_that_row_only() -> None:
    bad = pa.array([b"ok", b"\xff", b"fine"], pa.binary()).view(pa.string())
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": bad}), stream)
    assert outcomes(read_parquet(io.BytesIO(stream.getvalue()))) == [
        (1, {"text": "ok"}),
        (2, "invalid_utf8"),
        (3, {"text": "fine"}),
    ]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
        st.dictionaries(
            st.sampled_from(
                ["messages", "prompt", "completion", "question", "answer", "text", "instruction"]
            ),
            st.text(st.characters()) | st.floats() | st.lists(st.dictionaries(st.just("role"), st.text())),
        ).map(lambda value: json.dumps(value).encode()),
    ),
    st.sampled_from(sorted(set(READERS) - {".parquet"})),
)
def test_no_bytes_make_a_reader_raise(content: bytes, suffix: str) -> None:
    for line, row in READERS[suffix](io.BytesIO(content)):
        assert line >= 1
        found = row if isinstance(row, RowFault) else canonicalise(row, "auto", {})
        assert isinstance(found, CanonicalRow | RowFault)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.jsonl", ".jsonl"),
        ("A.JSONL.GZ", ".jsonl"),
        ("b.csv.gz", ".csv"),
        ("c.parquet.gz", None),
        ("jsonl", None),
    ],
)
def test_suffixes(name: str, suffix: str | None) -> None:
    if name == "jsonl":
        assert suffix_of("README") is None
    else:
        assert suffix_of(name) == suffix


def read_all(**source: Any) -> list[Any]:
    opened = open_sources([SourceSection(**source)])
    return [row.content for one in opened for row in one.rows()]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "b.json").write_text(json.dumps([ROW]))
    (tmp_path / "c.csv").write_text("question,answer\nWhy?,Because.\n")
    (tmp_path / "d.tsv").write_text("question\tanswer\nWhy?\tBecause.\n")
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "e.parquet")
    with gzip.open(tmp_path / "f.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(ROW))
    (tmp_path / "README.md").write_text("not rows")
    (tmp_path / ".hidden.jsonl").write_text("not rows")
    assert read_all(path=str(tmp_path)) == [ROW] * 6
    assert read_all(path=str(tmp_path / "*.jsonl*")) == [ROW] * 2
    assert open_sources([SourceSection(path=str(tmp_path))])[0].notes == [
        "not read, for their suffix: README.md"
    ]


def test_names_are_made_unique(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW))
    section = SourceSection(path=str(tmp_path / "a.jsonl"))
    assert [one.name for one in open_sources([section, section, section])] == [
        "a.jsonl",
        "a.jsonl#2",
        "a.jsonl#3",
    ]


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(DataError) as caught:
        find_files(str(tmp_path / "trian.jsonl"))
    assert caught.value.what == f"`{tmp_path / 'trian.jsonl'}` is not there"
    assert caught.value.why == "nothing has this name"
    assert "train.jsonl" in caught.value.fix
    with pytest.raises(DataError, match="is not there"):
        find_files(str(tmp_path / "nowhere" / "train.jsonl"))


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_files(str(tmp_path))
    assert "empty" in caught.value.why
    with pytest.raises(DataError) as caught:
        find_files(str(tmp_path / "*.jsonl"))
    assert "no file matches" in caught.value.why
    (tmp_path / "rows.xlsx").touch()
    for pattern in (tmp_path, tmp_path / "rows.xlsx", tmp_path / "*.xlsx"):
        with pytest.raises(DataError) as caught:
            find_files(str(pattern))
        assert "unknown suffix" in caught.value.why
        assert ".parquet" in caught.value.fix


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet"])
def test_a_damaged_file_is_a_data_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8bnot really")
    with pytest.raises(DataError) as caught:
        read_all(path=str(tmp_path / name))
    assert name in caught.value.what


def test_a_file_that_changes_while_read_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "rows.jsonl"
    place.write_text(json.dumps(ROW) + "\n")
    (source,) = open_sources([SourceSection(path=str(place))])
    place.write_text((json.dumps(ROW) + "\n") * 2)
    with pytest.raises(DataError, match="changed while it was read"):
        list(source.rows())


class FakeDatasets:
    """Stands for the package `datasets`."""

    class Loaded(list[Any]):
        _fingerprint = "abc"

    def load_dataset(self, name: str, subset: str | None, *, split: str) -> Any:
        if name == "gone":
            raise ConnectionError("no network")
        return self.Loaded([ROW])


def test_a_hub_dataset_is_read_through_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", FakeDatasets())
    (source,) = open_sources([SourceSection(dataset="org/name")])
    assert [row.content for row in source.rows()] == [ROW]
    assert source.identity["fingerprint"] == "abc"
    with pytest.raises(DataError) as caught:
        open_sources([SourceSection(dataset="gone")])
    assert "no network" in caught.value.why
    assert "offline" in caught.value.fix


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError) as caught:
        open_sources([SourceSection(dataset="org/name")])
    assert "raytrain[hub]" in caught.value.fix

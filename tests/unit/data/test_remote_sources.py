"""Sources on an object store, against moto's server: the rows, and the identity, of the same files here."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="it is of the extra raytrain[dev]")

from object_server import BUCKET, CREDENTIALS, object_server

from raytrain.data.section import SourceSection
from raytrain.data.sources import Source, open_sources
from raytrain.errors import DataError
from raytrain.storage.location import Location

pytestmark = pytest.mark.slow
ROWS = [json.dumps({"question": f"{number}?", "answer": str(number)}) for number in range(5)]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Location]:
    with object_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.moto_port}")
        yield Location(f"s3://{BUCKET}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def opened(path: Location | Path) -> Source[SourceSection]:
    (source,) = open_sources([SourceSection(path=str(path))])
    return source


def lines(source: Source[SourceSection]) -> list[object]:
    return [row.content for row in source.rows()]


def copies(home: Path) -> list[Path]:
    return sorted((home / "sources").glob("*/*"))


def test_a_file_there_is_the_same_source_as_here_and_is_copied_once(
    bucket: Location, home: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "rows.jsonl", bucket / "one/rows.jsonl"
    here.write_text("\n".join(ROWS))
    there.write_bytes(here.read_bytes())
    source = opened(there)
    assert lines(source) == lines(opened(here)) and len(lines(source)) == 5
    assert (source.name, source.identity) == ("rows.jsonl", opened(here).identity)
    assert source.provenance["path"] == str(there), "where it came from, not where it was copied to"
    (copy,) = copies(home)
    inode = copy.stat().st_ino
    opened(there)
    assert [one.stat().st_ino for one in copies(home)] == [inode]

    there.write_bytes("\n".join(ROWS[:3]).encode())
    assert len(lines(opened(there))) == 3
    assert len(copies(home)) == 2


def test_a_folder_there_holds_what_a_folder_here_does(bucket: Location, tmp_path: Path) -> None:
    here, there = tmp_path / "rows", bucket / "folder/rows"
    (here / "deeper").mkdir(parents=True)
    for name, content in {
        "a.jsonl": "\n".join(ROWS[:2]).encode(),
        "deeper/b.jsonl.gz": gzip.compress("\n".join(ROWS[2:]).encode()),
        "deeper/notes.md": b"not rows",
    }.items():
        (here / name).write_bytes(content)
        (there / name).write_bytes(content)
    assert lines(opened(there)) == lines(opened(here)) and len(lines(opened(there))) == 5
    assert opened(there).identity == opened(here).identity
    assert opened(there).notes == ["not read, for their suffix: deeper/notes.md"]


@pytest.mark.parametrize("name", ["nothing.jsonl", "one/*.jsonl"])
def test_what_is_not_there(bucket: Location, home: Path, name: str) -> None:
    (bucket / "one/rows.jsonl").write_bytes(b"{}")
    with pytest.raises(DataError) as caught:
        opened(bucket / name)
    assert caught.value.what == f"`{bucket / name}` is not there"
    assert "without wildcards" in caught.value.fix
    assert not (home / "sources").exists()


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(ROWS))
    (source,) = open_sources([SourceSection(path=f"file://{tmp_path}/rows.jsonl")])
    assert len(lines(source)) == 5

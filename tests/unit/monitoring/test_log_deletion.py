"""A user's words go out of the request log, whenever and by which process they were written."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raytrain.errors import StorageError
from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.monitoring.learning import log_deletion
from raytrain.monitoring.learning.forgetting import pseudonyms_of
from raytrain.monitoring.learning.log_deletion import delete_from_log

JANE, BOB = ([pseudonym(name)] for name in ("jane", "bob"))


def write(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / f"{name}.parquet")


def asked(request_id: str, user: str | None, key: str = "k") -> dict[str, Any]:
    whose = None if user is None else pseudonym(user)
    return {"request_id": request_id, "key": key, "user": whose, "prompts": [f"words of {user}"]}


def said(request_id: str, words: str, user: str | None = None, key: str = "k") -> dict[str, Any]:
    whose = None if user is None else pseudonym(user)
    return {"request_id": request_id, "key": key, "rating": None, "correction": words, "user": whose}


def left(folder: Path, kind: str = "feedback") -> list[str]:
    rows = [
        row for path in sorted(folder.glob(f"{kind}-*")) for row in pq.ParquetFile(path).read().to_pylist()
    ]
    return [row["correction"] if kind == "feedback" else row["request_id"] for row in rows]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write(tmp_path, "requests-a", [asked("r1", "jane"), asked("r2", "bob"), asked("r3", None)])
    return tmp_path


def test_feedback_that_is_written_after_the_first_call_is_found_by_the_next(log: Path) -> None:
    assert delete_from_log(log, JANE) == 1 and left(log, "requests") == ["r2", "r3"]
    write(log, "feedback-a", [said("unkept", "jane's, of a request whose words nobody kept", "jane")])
    write(log, "feedback-b", [said("r1", "jane's, taken by another process"), said("r2", "bob's")])
    assert delete_from_log(log, JANE) == 2
    assert left(log) == ["bob's"]


def test_of_an_id_that_several_have_chosen_only_the_users_own_feedback_goes(log: Path) -> None:
    write(log, "requests-b", [asked("same", "jane"), asked("same", "bob"), asked("same", None, "theirs")])
    rows = [
        said("same", "jane's", "jane"),
        said("same", "bob's", "bob"),
        said("same", "theirs", None, "theirs"),
    ]
    write(log, "feedback-a", rows)
    assert delete_from_log(log, JANE) == 3
    assert left(log) == ["bob's", "theirs"]


def test_logs_of_before_know_no_users_in_feedback_and_none_at_all(log: Path) -> None:
    older = [{name: cell for name, cell in said("r1", "jane's").items() if name != "user"}]
    write(log, "feedback-a", older)
    write(log, "requests-0", [{"request_id": "r0", "key": "k", "prompts": ["of nobody"]}])
    assert delete_from_log(log, JANE) == 2
    assert left(log) == [] and left(log, "requests") == ["r0", "r2", "r3"]


def test_nothing_is_deleted_while_a_file_cannot_be_read(log: Path) -> None:
    (log / "feedback-a.parquet").write_bytes(b"PAR1")
    write(log, "feedback-b", [said("r1", "jane's")])
    with pytest.raises(StorageError, match="feedback-a"):
        delete_from_log(log, JANE)
    assert left(log, "requests") == ["r1", "r2", "r3"]
    (log / "feedback-a.parquet").unlink()
    assert delete_from_log(log, JANE) == 2 and left(log) == []


def test_a_call_that_is_killed_after_any_file_is_ended_by_the_next(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, "requests-b", [asked("r4", "jane")])
    for name, request_id in (("feedback-a", "r1"), ("feedback-b", "r4")):
        write(log, name, [said(request_id, "jane's"), said("r2", "bob's")])
    real = log_deletion.write_atomically

    def killed(path: Path, content: bytes) -> None:
        real(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(log_deletion, "write_atomically", killed)
    for _ in range(5):  # the note, and four files
        with pytest.raises(KeyboardInterrupt):
            delete_from_log(log, JANE)
    assert delete_from_log(log, JANE) == 0
    assert left(log) == ["bob's", "bob's"] and left(log, "requests") == ["r2", "r3"]


def test_a_name_that_looks_like_a_pseudonym_is_looked_for_as_both(log: Path) -> None:
    name = uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF).hex
    write(log, "requests-b", [asked("r4", name)])
    assert delete_from_log(log, pseudonyms_of(name)) == 1
    assert delete_from_log(log, pseudonyms_of(pseudonym("bob"))) == 1
    assert left(log, "requests") == ["r1", "r3"]
    assert pseudonyms_of("jane") == JANE
    assert delete_from_log(log / "none", JANE) == 0

"""A request log as it is read: which feedback is about which answer, and what cannot be used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raytrain.monitoring.learning.interaction import interactions_of
from raytrain.monitoring.request_log import read_request_log
from raytrain.monitoring.times import as_seconds
from raytrain.monitoring.triggers.falls import answered_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / f"{name}.parquet")


def answered(second: float, prompt: str = "q", answer: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "at": BEGAN + timedelta(seconds=second), "request_id": "same", "key": "app", "model": "helper@1", "digest": "d",
        "arm": None, "prompts": [prompt], "answers": [answer], "finish": ["stop"], "user": None, "consent": True,
        **more,
    }  # fmt: skip


def said(second: float, rating: str | None, correction: str | None = None, **more: Any) -> dict[str, Any]:
    at = BEGAN + timedelta(seconds=second)
    return {"at": at, "request_id": "same", "key": "app", "rating": rating, "correction": correction, **more}


def learned(folder: Path) -> list[tuple[str, str]]:
    answers = read_request_log(folder).answers()
    return [(one.asked, one.target) for row in answers for one in interactions_of(*row)]


def test_of_several_answers_with_one_id_the_newest_is_meant_that_was_there(tmp_path: Path) -> None:
    france, italy = answered(0, "Capital of France?", "Paris"), answered(9, "Capital of Italy?", "Florence")
    write(tmp_path, "requests-a", italy, france, answered(30, "Capital of Spain?", "Madrid"))
    write(tmp_path, "feedback-a", said(12, None, "Rome"), said(-5, "down"), said(5, "up"))
    assert learned(tmp_path) == [
        ("Capital of Italy?", "Rome"), ("Capital of France?", "Paris"), ("Capital of Spain?", "Madrid"),
    ]  # fmt: skip
    told = {row["answers"][0]: feedback for row, feedback in read_request_log(tmp_path).answers()}
    assert told["Paris"] == {"rating": "up", "at": BEGAN + timedelta(seconds=5)}, "what was said later counts"
    assert told["Madrid"] is None


def test_one_thumb_counts_once_however_many_requests_have_its_id(tmp_path: Path) -> None:
    write(tmp_path, "requests-a", *(answered(second) for second in range(40)))
    write(tmp_path, "feedback-a", said(99, "down"))
    rows = read_request_log(tmp_path).answers()
    seen = [answered_of(row, feedback, as_seconds(row["at"])).approval for row, feedback in rows]
    assert seen.count(False) == 1 and seen[-1] is False


def test_the_newest_words_count_and_a_clock_may_be_behind(tmp_path: Path) -> None:
    write(tmp_path, "requests-a", answered(10), answered(10, digest="of the candidate", arm="candidate"))
    write(tmp_path, "feedback-a", said(20, "up"), said(3, "down", "b"))
    write(tmp_path, "feedback-b", said(4, "up", key="another"))
    ((row, feedback),) = read_request_log(tmp_path).answers()
    assert row["digest"] == "d"
    assert feedback == {"rating": "up", "correction": "b", "at": BEGAN + timedelta(seconds=20)}


def test_a_log_that_was_copied_is_the_same_answer_twice(tmp_path: Path) -> None:
    write(tmp_path, "requests-a", answered(0), answered(5))
    write(tmp_path, "requests-b", answered(5))
    write(tmp_path, "feedback-a", said(9, "down"))
    told = [feedback and feedback["rating"] for _, feedback in read_request_log(tmp_path).answers()]
    assert told == [None, "down", "down"]


ODD = {
    "a time that is none": pa.array([10**17], pa.timestamp("ms", tz="UTC")),
    "an unknown zone": pa.array([10**12], pa.timestamp("ms", tz="Foo/Bar")),
    "no time but a span": pa.array([2**62], pa.duration("s")),
    "a date that is none": pa.array([10**17], pa.date64()),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_keeps_no_other_from_being_read(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"at": ODD[name], "request_id": ["a"]}), tmp_path / "requests-odd.parquet")
    pq.write_table(pa.table({"at": ODD[name], "request_id": ["a"]}), tmp_path / "feedback-odd.parquet")
    write(tmp_path, "requests-a", answered(0))
    found = read_request_log(tmp_path)
    assert len(found.requests) == 1
    assert len(found.notes) == 2 and all("-odd.parquet" in note for note in found.notes), found.notes


@pytest.mark.parametrize(
    "change",
    [
        {"answers": [None]},
        {"answers": ["a", None]},
        {"prompts": "no list"},
        {"finish": [1]},
        {"key": ["k"]},
        {"user": {"name": "u"}},
        {"digest": 5},
    ],
)
def test_a_row_that_no_server_writes_is_told_and_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, "requests-a", answered(0))
    write(tmp_path, "requests-b", answered(1, **change))
    write(tmp_path, "feedback-a", said(2, "up", ["no text"]))
    found = read_request_log(tmp_path)
    assert len(found.requests) == 1 and found.feedback == []
    assert [note[:17] for note in found.notes] == ["1 rows of request", "1 rows of feedbac"]
    ((row, _),) = found.answers()
    assert answered_of(row, None, 0.0).whole


def test_a_row_that_lacks_what_is_not_asked_for_is_one(tmp_path: Path) -> None:
    write(tmp_path, "requests-a", answered(0, prompts=None, answers=None, finish=None))
    write(tmp_path, "requests-b", {"at": BEGAN, "request_id": "r"})
    found = read_request_log(tmp_path)
    assert len(found.answers()) == 2 and found.notes == []

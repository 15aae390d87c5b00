"""What is read, measured and put into windows; what cannot be is told."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from answering_backends import ToldBackend, listening

from raytrain.errors import ConfigError, DataError
from raytrain.evaluation.confidence import confidence_of
from raytrain.monitoring.drift.columns import numbers
from raytrain.monitoring.drift.features import choose_features, guess_kind, measure_features
from raytrain.monitoring.drift.request_log import KINDS, read_request_log
from raytrain.monitoring.drift.rows import read_table
from raytrain.monitoring.drift.rules import changed_streams, falls, fixed_breaches
from raytrain.monitoring.drift.section import FallRule, FixedRule, StreamRule, WindowSection, load_watch
from raytrain.monitoring.drift.texts import OF_ANY_TEXT, answer_format, language, refusal, tool, vocabulary
from raytrain.monitoring.drift.windows import Window, choose_windows
from raytrain.monitoring.times import as_seconds
from raytrain.serving.backend import Ask, Served
from raytrain.serving.engine.request import Piece, Token
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection, RequestLogSection

NOW = 1_800_000_000.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def test_what_is_measured_of_answers() -> None:
    texts = [
        'Sure: {"a": 1}', '{"tool": "weather", "arguments": {"city": "Rome"}}', '[1, 2',
        "I'm sorry, I can't help with that.",
        '```json\n{"a": 1}\n```', "", None, '[{"name": "book", "parameters": {}}]',
    ]  # fmt: skip
    assert answer_format("f", texts).values.to_pylist() == [
        "json in text", "tool call", "broken json", "text", "json", "text", None, "tool call",
    ]  # fmt: skip
    assert tool("t", texts).values.to_pylist()[1::6] == ["weather", "book"]
    refused = refusal("r", texts).values.to_pylist()
    assert (refused[0], refused[3], refused[5], refused[6]) == ("complied", "refused", "empty", None)
    counted = vocabulary("v", ["One one two", None]).values
    assert counted.sum(axis=1).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("text", "measured"),
    [
        ("Wake me up at six.", {"characters": 18, "words": 5, "word length": 2.6, "repeated words": 0.0}),
        ("No, no; NO no!", {"characters": 14, "words": 4, "word length": 2.0, "repeated words": 0.75}),
        ("it's a_b 1.5 straße", {"characters": 19, "words": 6, "word length": 14 / 6, "repeated words": 0.0}),
        ("one two  one\n", {"characters": 13, "words": 3, "word length": 3.0, "repeated words": 1 / 3}),
        ("…?!", {"characters": 3, "words": 0, "word length": None, "repeated words": None}),
        ("", {"characters": 0, "words": 0, "word length": None, "repeated words": None}),
        (None, dict.fromkeys(("characters", "words", "word length", "repeated words"))),
        (
            "a " * 20_000,
            {"characters": 40_000, "words": 10_000, "word length": 1.0, "repeated words": 0.9999},
        ),
    ],
    ids=[
        "all different",
        "repeated",
        "what a word is",
        "some repeated",
        "no word",
        "empty",
        "missing",
        "long",
    ],
)
def test_what_is_measured_of_any_text(text: str | None, measured: dict[str, float | None]) -> None:
    """None = it has no such value. Of a long text the first 20,000 characters are read, but for its length."""
    for name, value in measured.items():
        (found,) = OF_ANY_TEXT[name]("f", [text]).values
        assert found == pytest.approx(math.nan if value is None else value, nan_ok=True), name


def test_languages_are_told() -> None:
    texts = [
        "The quick brown fox jumps over the lazy dog and runs home.",
        "Der schnelle braune Fuchs springt über den faulen Hund und läuft nach Hause.",
        "12345 !!", None,
    ]  # fmt: skip
    assert language("l", texts).values.to_pylist() == ["en", "de", None, None]


def test_confidence_is_of_the_likeliest_tokens() -> None:
    even = [float(np.log(0.2))] * 5
    found = confidence_of([even, even])
    assert found.top_1 == pytest.approx(0.2) and found.top_5 == pytest.approx(1.0)
    assert found.entropy == pytest.approx(np.log(5))
    sure = confidence_of([[0.0, -50.0, -50.0, -50.0, -50.0, -60.0]])
    assert sure.top_1 == 1.0 and sure.entropy == pytest.approx(0.0, abs=1e-6)
    few = confidence_of([[float(np.log(0.5)), float(np.log(0.3))], []])
    assert (few.top_1, few.top_5, few.entropy) == (pytest.approx(0.5), None, None)
    assert confidence_of([]).top_1 is None


def test_kinds_are_guessed_and_may_be_said() -> None:
    columns: dict[str, list[Any]] = {
        "length": [1, 2.5, None], "is_ok": [True, False, True], "grade": ["a", "b", "a"],
        "question": ["What is the weather like in the north of Norway today?"] * 3,
        "row_id": ["x", "y", "z"], "when": [at(0)] * 3, "nothing": [None] * 3, "odd": [{"a": 1}] * 3,
        "logprobs": [[[-0.1, -2.0]]] * 3,
    }  # fmt: skip
    guessed = {name: guess_kind(name, cells)[0] for name, cells in columns.items()}
    assert guessed == {
        "length": "numeric", "is_ok": "categorical", "grade": "categorical", "question": "text", "row_id": "ignore",
        "when": "ignore", "nothing": "ignore", "odd": "ignore", "logprobs": "logprobs",
    }  # fmt: skip
    features, notes = choose_features(columns, {"grade": "ignore", "question": "answer"})
    named = [one.name for one in features]
    assert {"question: refusal", "question: language", "logprobs: entropy"} <= set(
        named
    ) and "grade" not in named
    assert "row_id is left out: ids say nothing" in notes and not any("grade" in one for one in notes)
    measured = measure_features(columns, features)
    assert [one.name for one in measured] == named and all(len(one) == 3 for one in measured)
    with pytest.raises(DataError, match="no column grad"):
        choose_features(columns, {"grad": "ignore"})
    with pytest.raises(DataError, match="no column grade"):
        measure_features({}, choose_features({"grade": ["a"]}, {})[0])


def write_log(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name)


def answered(place: int, seconds: float) -> dict[str, Any]:
    return {
        "at": at(seconds), "request_id": f"r{place}", "key": "k", "model": "helper@1.0.0", "digest": "sha256:1",
        "prompts": [f"Question {place}"], "answers": ["Yes."], "finish": ["stop"], "completion_tokens": 2,
    }  # fmt: skip


def test_a_log_is_joined_with_its_feedback(tmp_path: Path) -> None:
    write_log(tmp_path, "requests-b.parquet", [answered(1, -50), answered(3, -30)])
    write_log(tmp_path, "requests-a.parquet", [answered(2, -40), {**answered(4, -20), "model": "other@2"}])
    feedback = {"at": at(-10), "request_id": "r2", "key": "k", "rating": "down", "correction": "No."}
    early = {"at": at(-90), "request_id": "r3", "key": "k", "rating": "up", "correction": None}
    strange = {**feedback, "key": "another", "request_id": "r1"}
    write_log(tmp_path, "feedback-a.parquet", [feedback, early, strange])
    rows = read_request_log(tmp_path, "helper", NOW)
    assert rows.columns["request_id"] == ["r1", "r2", "r3"]
    assert rows.columns["approval"] == [None, 0.0, 1.0]
    assert rows.columns["corrected"] == [None, 1.0, 0.0]
    assert rows.columns["answer"] == ["Yes."] * 3 and rows.columns["finish"] == ["stop"] * 3
    assert rows.notes == ["clock skew: 1 answers have feedback from before they were written; it is kept"]


def test_files_that_hold_nothing_later_are_not_opened(tmp_path: Path) -> None:
    written = at(-500).strftime("%Y%m%dT%H%M%S")
    write_log(tmp_path, f"requests-{written}-0a1b2c3d.parquet", [answered(1, -510), answered(2, -505)])
    write_log(tmp_path, "requests-copy.parquet", [answered(3, -10)])
    (tmp_path / f"feedback-{written}-0a1b2c3d.parquet").write_bytes(b"nobody opens this")
    for since, expected, num_notes in (
        (None, ["r1", "r2", "r3"], 1),
        (NOW - 520, ["r1", "r2", "r3"], 1),
        (NOW - 300, ["r3"], 0),
    ):
        rows = read_request_log(tmp_path, None, NOW, since)
        assert (rows.columns["request_id"], len(rows.notes)) == (expected, num_notes), since


class SureBackend(ToldBackend):
    """Tells five likeliest tokens in the place of each."""

    async def generate(self, ask: Ask) -> AsyncIterator[Served | Piece]:
        likeliest = tuple((i, str(i), float(np.log(one))) for i, one in enumerate([0.5, 0.2, 0.1, 0.1, 0.05]))
        async for one in super().generate(ask):
            is_text = isinstance(one, Piece) and one.text
            yield replace(one, tokens=(Token(0, "0", likeliest[0][2], likeliest),)) if is_text else one


def test_what_a_server_writes_is_read(tmp_path: Path) -> None:
    section = HttpSection(
        insecure=True, request_log=RequestLogSection(folder=str(tmp_path), share=1.0, feedback=True)
    )
    body = {"model": "helper", "prompt": "Who is there?"}
    for backend in (ToldBackend(), SureBackend()):
        with listening(build_app(backend, section)) as url:
            answer = requests.post(f"{url}/v1/completions", json=body, timeout=30)
            told = {"request_id": answer.headers["x-request-id"], "rating": "up"}
            requests.post(f"{url}/v1/feedback", json=told, timeout=30)
    rows = read_request_log(tmp_path, "helper", time.time())
    assert rows.notes == [] and len(rows) == 2
    assert rows.columns["prompt"] == ["Who is there?"] * 2 and rows.columns["answer"] == ["Hello there"] * 2
    assert rows.columns["approval"] == [1.0, 1.0] and rows.columns["finish"] == ["stop"] * 2
    assert rows.columns["top_1"] == [None, pytest.approx(0.5)]
    assert rows.columns["top_5"] == [None, pytest.approx(0.95)]
    assert 1.0 < rows.columns["entropy"][1] < np.log(6)
    assert set(KINDS) <= set(rows.columns)


def test_what_cannot_be_read_of_a_log_is_told_and_left_out(tmp_path: Path) -> None:
    write_log(tmp_path, "requests-a.parquet", [answered(1, -50), answered(2, 4_000)])
    (tmp_path / "requests-b.parquet").write_bytes((tmp_path / "requests-a.parquet").read_bytes()[:300])
    (tmp_path / "requests-c.parquet").write_bytes(b"")
    (tmp_path / "feedback-d.parquet").symlink_to(tmp_path / "gone")
    rows = read_request_log(tmp_path, None, NOW)
    assert rows.columns["request_id"] == ["r1"]
    told = " | ".join(rows.notes)
    assert "requests-b.parquet (ArrowInvalid), requests-c.parquet" in told and "feedback-d.parquet" in told
    assert "1 rows are left out: clock skew, they are up to 4,000 s in the future" in told
    nowhere = read_request_log(tmp_path / "none", None, NOW)
    assert len(nowhere) == 0 and "no server has written a log there yet" in nowhere.notes[0]


def test_tables_are_read_by_time_and_faults_are_told(tmp_path: Path) -> None:
    lines = [
        json.dumps({"at": "2026-01-02T00:00:00", "x": 2}), json.dumps({"at": "2026-01-01", "x": 1}), "{broken",
        json.dumps({"at": "soon", "x": 3}),
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    whole = tmp_path / "part.parquet"
    pq.write_table(pa.table({"at": ["2026-01-03"], "x": [4]}), whole)
    (tmp_path / "half.parquet").write_bytes(whole.read_bytes()[:100])
    rows = read_table(str(tmp_path), None, NOW)
    assert rows.columns["x"] == [1, 2, 4] and rows.times is not None
    told = " | ".join(rows.notes)
    assert "half.parquet is read up to row 0" in told and "1 rows of rows.jsonl are left out" in told
    assert "1 rows are left out: they have no time that can be read" in told
    with pytest.raises(DataError, match="no column when"):
        read_table(str(tmp_path), "when", NOW)
    (tmp_path / "plain.csv").write_text("x\n1\n2\n")
    assert read_table(str(tmp_path / "plain.csv"), None, NOW).times is None


@pytest.mark.parametrize("value", [None, True, "yesterday", {}, 10**400])
def test_what_is_no_time_is_none(value: Any) -> None:
    assert np.isnan(as_seconds(value))


def test_windows_of_rows_follow_each_other_and_part_no_moment() -> None:
    times = np.array([1.0, 2, 3, 3, 3, 4, 5, 99])
    section = WindowSection(rows=3, settle_s=10)
    found = choose_windows(times, None, section, now=60.0)
    assert found == [Window(0, 5, 1.0, 3.0)], "the second is not whole: its last row is not settled"
    assert choose_windows(times, 3.0, section, now=200.0) == [Window(5, 8, 4.0, 99.0)]
    assert choose_windows(times, 99.0, section, now=200.0) == []
    assert choose_windows(np.zeros(0), None, section, now=200.0) == []


def test_windows_of_time_tell_of_a_time_without_rows_once() -> None:
    hour = 3600.0
    times = np.array([0.5, 0.6, 5.5, 6.9]) * hour
    section = WindowSection(rows=None, hours=1.0, settle_s=0.0)
    found = choose_windows(times, 0.0, section, now=7.5 * hour)
    assert [(one.end - one.first, one.begins_at / hour, one.ends_at / hour) for one in found] == [
        (2, 0, 1), (0, 1, 5), (1, 5, 6), (1, 6, 7)
    ]  # fmt: skip
    idle = choose_windows(times, 7 * hour, section, now=30.5 * hour)
    assert [(one.first, one.end, one.ends_at / hour) for one in idle] == [(4, 4, 30.0)]


def test_rules_that_are_numbers() -> None:
    generator = np.random.default_rng(0)
    then = [numbers("x", generator.normal(size=2_000)), numbers("right", generator.random(2_000) < 0.9)]
    now = [numbers("x", generator.normal(1.0, 1.0, 1_000)), numbers("right", generator.random(1_000) < 0.8)]
    rules = [
        FixedRule(distance="psi", above=0.25, warn_above=0.1),
        FixedRule(distance="js", above=0.2, feature="x"),
    ]
    found = {(one.feature, one.what): one for one in fixed_breaches(then, now, rules)}
    assert found[("x", "psi")].is_alarm and found[("x", "js")].value > 0.2
    assert ("right", "psi") not in found or not found[("right", "psi")].is_alarm
    assert fixed_breaches(then, then, rules) == []
    (fell,) = falls(then, now, [FallRule(feature="right", by=0.05)])
    assert fell.value == pytest.approx(0.1, abs=0.04)
    assert falls(then, now, [FallRule(feature="right", by=0.3)]) == []
    empty = [numbers("x", []), numbers("right", [])]
    assert (
        fixed_breaches(then, empty, rules) == []
        and falls(then, empty, [FallRule(feature="right", by=0.05)]) == []
    )
    (changed,) = changed_streams(then, [numbers("x", [])], now, [StreamRule(feature="x")])
    assert changed.what.startswith("adwin at value")
    for key, check in (
        ("fixed", lambda: fixed_breaches(then, now, [FixedRule(distance="js", above=1, feature="rigt")])),
        ("falls", lambda: falls(then, now, [FallRule(feature="rigt", by=1)])),
        ("streams", lambda: changed_streams(then, [], now, [StreamRule(feature="rigt")])),
    ):
        with pytest.raises(ConfigError, match=f"{key}: there is no .*feature `rigt`") as told:
            check()
        assert told.value.fix == "did you mean `right`?"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("watch: a/b\n", "watch"),
        ("watch: a\nwindow: {rows: null}\n", "neither is given"),
        ("watch: a\nwindow: {hours: 3}\n", "both are given"),
        ("watch: a\ndistances: {categorical: ks}\n", "ks does not measure"),
        ("watch: a\nlog: x\nrows: y\n", "`log` and `rows`"),
        ("watch: a\nrows: y\nmodel: m\n", "chooses answers of a request log"),
        ("watch: a\nlevel: null\n", "nothing would ever be an alarm"),
        ("watch: a\nfixed: [{distance: ps1, above: 1}]\n", "psi"),
        ("watch: a\nlevle: 0.1\n", "did you mean `level`"),
    ],
)
def test_a_watch_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "watch.yaml").write_text(text)
    with pytest.raises(ConfigError) as found:
        load_watch(tmp_path / "watch.yaml")
    assert word in str(found.value)

"""What is kept of what was asked, and what is not."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from answering_backends import BASE_DIGEST, ToldBackend, listening, wait_until

from raytrain.evaluation.safety.findings import build_detectors
from raytrain.evaluation.safety.redaction import pseudonym, without_personal_data
from raytrain.serving.backend import Ask, Served
from raytrain.serving.engine.request import Finish, Piece, Token
from raytrain.serving.http.app import build_app
from raytrain.serving.http.keys import KeyFile
from raytrain.serving.http.parquet_log import ParquetLog
from raytrain.serving.http.section import HttpSection

pytestmark = pytest.mark.whole

ASKED = "Write to jane.doe@corp.com, whose card is 4539 1488 0343 6467."
TEXT: dict[str, Any] = {"model": "helper", "prompt": ASKED}


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    files = sorted(folder.glob(f"{kind}-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def section_of(folder: Path, **settings: Any) -> HttpSection:
    return HttpSection(insecure=True, request_log={"folder": str(folder), **settings})  # type: ignore[arg-type]


def test_a_sample_is_kept_without_personal_data(tmp_path: Path) -> None:
    backend = ToldBackend(pieces=["Call +1 415 555", " 2671 now"])
    with listening(build_app(backend, section_of(tmp_path / "log", share=1.0))) as url:
        for body in (TEXT, {**TEXT, "stream": True}, {**TEXT, "prompt": [[1, 2], [3]], "n": 2}):
            requests.post(f"{url}/v1/completions", json=body, timeout=30)
        chat = {"model": "helper", "messages": [{"role": "user", "content": ASKED}]}
        requests.post(f"{url}/v1/chat/completions", json=chat, timeout=30)
        requests.post(f"{url}/v1/completions", json={**TEXT, "model": "nobody"}, timeout=30)
    whole, streamed, several, messages = rows(tmp_path / "log", "requests")
    for row in (whole, streamed):
        assert row["prompts"] == ["Write to [email], whose card is [credit_card]."]
        assert row["answers"] == ["Call [phone] now"], "what was told in two pieces is looked at as one text"
        assert (row["model"], row["digest"], row["finish"]) == ("helper@1.2.0", "1" * 64, ["stop"])
        assert (row["prompt_tokens"], row["completion_tokens"]) == (5, 2)
    assert (whole["route"], messages["route"]) == ("/v1/completions", "/v1/chat/completions")
    assert several["prompts"] == ["2 token ids", "1 token ids"], "any tokenizer makes a text of them again"
    assert len(several["answers"]) == 4
    assert "[email]" in messages["prompts"][0]
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    assert "jane" not in str([whole, streamed, several, messages])


def test_who_asks_says_whether_it_is_kept_and_learned_from(tmp_path: Path) -> None:
    with listening(build_app(ToldBackend(), section_of(tmp_path / "log", share=0.0, feedback=True))) as url:
        for more in ({"store": True, "user": "jane"}, {"store": False}, {}):
            assert (
                requests.post(f"{url}/v1/completions", json={**TEXT, **more}, timeout=30).status_code == 200
            )
    (kept,) = rows(tmp_path / "log", "requests")
    assert (kept["consent"], kept["user"]) == (True, pseudonym("jane"))
    with listening(build_app(ToldBackend(), section_of(tmp_path / "all", share=1.0))) as url:
        for more in ({"store": True}, {"store": False}, {}):
            requests.post(f"{url}/v1/completions", json={**TEXT, **more}, timeout=30)
    assert [(row["consent"], row["user"]) for row in rows(tmp_path / "all", "requests")] == [
        (True, None), (False, None),
    ]  # fmt: skip
    with listening(build_app(ToldBackend(), HttpSection(insecure=True))) as url:
        refused = requests.post(f"{url}/v1/completions", json={**TEXT, "store": True}, timeout=30)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "store"


def test_probabilities_are_kept_and_told_to_nobody_who_did_not_ask(tmp_path: Path) -> None:
    backend = ToldBackend()
    with listening(build_app(backend, section_of(tmp_path / "log", share=1.0))) as url:
        answer = requests.post(f"{url}/v1/completions", json=TEXT, timeout=30).json()
        requests.post(f"{url}/v1/completions", json={**TEXT, "logprobs": 2}, timeout=30)
    assert answer["choices"][0]["logprobs"] is None
    assert [one.sampling.top_logprobs for one in backend.asks] == [5, 2], "what was asked for is not changed"
    assert rows(tmp_path / "log", "requests")[0]["top_1"] is None, "this backend tells none"


class LikelyBackend(ToldBackend):
    """Tells as many alternatives as it is asked for, the likeliest first."""

    async def generate(self, ask: Ask) -> AsyncIterator[Served | Piece]:
        self.asks.append(ask)
        most = ask.sampling.top_logprobs
        others = tuple((place, f"t{place}", -1.0 - place) for place in range(most or 0))
        yield Served("helper@1.2.0", "1" * 64, BASE_DIGEST)
        yield Piece(
            "t0", () if most is None else (Token(0, "t0", -1.0, others),), Finish("stop", 5, 0, 1, 0.0, 0.0)
        )


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(("asked", "told"), [({}, 0), ({"top_logprobs": 0}, 0), ({"top_logprobs": 2}, 2)])
def test_no_more_alternatives_are_told_than_were_asked_for(
    tmp_path: Path, share: float, asked: dict[str, Any], told: int
) -> None:
    chat = {"model": "helper", "messages": [{"role": "user", "content": ASKED}], "logprobs": True, **asked}
    with listening(
        build_app(LikelyBackend(), section_of(tmp_path / "log", share=share, feedback=True))
    ) as url:
        new = requests.post(f"{url}/v1/chat/completions", json=chat, timeout=30).json()
        old = requests.post(f"{url}/v1/completions", json={**TEXT, "logprobs": told}, timeout=30).json()
    assert len(new["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == told
    assert len((old["choices"][0]["logprobs"]["top_logprobs"] or [{}])[0]) == told


def test_nothing_is_kept_unless_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTRAIN_HOME", str(tmp_path))
    with listening(build_app(ToldBackend(), HttpSection(insecure=True))) as url:
        requests.post(f"{url}/v1/completions", json=TEXT, timeout=30)
        assert requests.post(f"{url}/v1/feedback", json={"request_id": "a"}, timeout=30).status_code == 404
    assert not list(tmp_path.rglob("*"))


def test_feedback_is_tied_to_the_digest_that_answered_and_to_the_key(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    mine, theirs = ({"authorization": f"Bearer {file.add(one)}"} for one in ("mine", "theirs"))
    section = HttpSection(
        api_keys=str(file.path),
        request_log={"folder": str(tmp_path / "log"), "feedback": True},  # type: ignore[arg-type]
    )
    with listening(build_app(ToldBackend(), section)) as url:
        body = {**TEXT, "user": "jane"}
        answer = requests.post(f"{url}/v1/completions", json=body, headers=mine, timeout=30).json()
        told = {"request_id": answer["id"], "rating": "down", "correction": "Write to max@corp.com"}
        name = answer["id"].removeprefix("cmpl-")
        first = requests.post(f"{url}/v1/feedback", json=told, headers=mine, timeout=30)
        assert first.json() == {"request_id": name, "is_known": True}
        assert not requests.post(f"{url}/v1/feedback", json=told, headers=theirs, timeout=30).json()[
            "is_known"
        ]
        empty = requests.post(f"{url}/v1/feedback", json={"request_id": "a"}, headers=mine, timeout=30)
        assert empty.status_code == 400
        for told in (
            {"request_id": "", "rating": "up"},
            {"request_id": "x" * 1025, "rating": "up"},
            {"request_id": "a", "correction": "x" * ((1 << 17) + 1)},
        ):
            answer = requests.post(f"{url}/v1/feedback", json=told, headers=mine, timeout=30)
            assert answer.status_code == 400
    known, foreign = rows(tmp_path / "log", "feedback")
    assert (known["request_id"], known["key"], known["digest"]) == (name, "mine", "1" * 64)
    assert (known["rating"], known["correction"]) == ("down", "Write to [email]")
    assert known["user"] == pseudonym("jane"), "or nobody would find it who is to forget her"
    assert (foreign["key"], foreign["digest"], foreign["user"]) == ("theirs", None, None)
    assert rows(tmp_path / "log", "requests") == [], "feedback alone keeps no prompts"


@pytest.mark.parametrize("asked", [None, "mine-1", "a" * 70, "trace: 00-4bf92f/1", "cmpl-a b", "../a", "é"])
def test_feedback_names_a_request_by_what_ray_s_proxy_tells_its_client(
    tmp_path: Path, asked: str | None
) -> None:
    from ray.serve._private.http_util import RequestIdMiddleware

    app: Any = RequestIdMiddleware(
        build_app(ToldBackend(), section_of(tmp_path / "log", feedback=True), is_behind_ray=True)
    )
    headers = {} if asked is None else {"x-request-id": asked.encode("latin-1")}
    with listening(app) as url:
        answer = requests.post(f"{url}/v1/completions", json=TEXT, headers=headers, timeout=30)
        for name in (answer.headers["x-request-id"], answer.json()["id"]):
            told = {"request_id": name, "rating": "up"}
            found = requests.post(f"{url}/v1/feedback", json=told, timeout=30).json()
            assert found == {"request_id": answer.json()["id"].removeprefix("cmpl-"), "is_known": True}


def test_where_a_detector_fails_nothing_is_kept() -> None:
    def failing(text: str) -> list[Any]:
        raise ValueError(text)

    detectors = {**build_detectors(), "own": failing}
    assert without_personal_data("jane.doe@corp.com", detectors) == "[not kept: a detector failed]"


def test_a_disk_that_takes_no_rows_keeps_nobody_from_an_answer_and_is_counted(tmp_path: Path) -> None:
    section = section_of(tmp_path / "log", share=1.0, flush_s=0.05).model_copy(update={"open_metrics": True})
    with listening(build_app(ToldBackend(), section)) as url:
        (tmp_path / "log").rmdir()
        (tmp_path / "log").write_text("no folder")
        assert requests.post(f"{url}/v1/completions", json=TEXT, timeout=30).status_code == 200
        wait_until(
            lambda: (
                'raytrain_request_log_rows_left_out{kind="requests"} 1.0'
                in requests.get(f"{url}/metrics", timeout=30).text
            ),
            "the row is counted",
        )


def test_rows_are_written_soon_and_what_cannot_be_is_counted(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "log", "few", pa.schema([("a", pa.int64())]), flush_s=0.1)
    log.put({"a": 1}, 0)
    wait_until(
        lambda: rows(tmp_path / "log", "few") == [{"a": 1}], "the row is in a file while the log is open"
    )
    log.put({"a": "no number"}, 0)
    wait_until(lambda: log.num_left_out == 1, "the row is counted")
    log.put({"a": 2}, 0)
    log.close()
    assert rows(tmp_path / "log", "few") in ([{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 1}])
    assert not list((tmp_path / "log").glob(".*"))


def test_what_waits_is_bounded_by_its_texts_too(tmp_path: Path) -> None:
    """A full file is written at once; what does not find room is left out and counted."""
    log = ParquetLog(tmp_path / "log", "few", pa.schema([("a", pa.string())]), flush_s=3600)
    text, is_open = "x" * (1 << 20), threading.Event()

    def kept() -> str:
        is_open.wait(60)
        return text

    for _ in range(40):
        log.put({"a": kept}, len(text))
    assert log.num_left_out == 8, "32 Mi of characters wait, not more"
    is_open.set()
    wait_until(
        lambda: sum(map(len, (one["a"] for one in rows(tmp_path / "log", "few")))) >= 32 << 20, "in files"
    )
    log.put({"a": kept}, len(text))
    log.close()
    assert log.num_left_out == 8 and len(rows(tmp_path / "log", "few")) == 33

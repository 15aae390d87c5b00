"""From what a server has logged to rows in the pool, and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests
from answering_backends import ToldBackend, listening
from commands import Told

from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection

pytestmark = pytest.mark.slow


def ask(url: str, prompt: str | list[int], user: str, **more: Any) -> str:
    body = {"model": "helper", "prompt": prompt, "user": user, "store": True, **more}
    answer = requests.post(f"{url}/v1/completions", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    name: str = answer.json()["id"]
    return name


def say(url: str, name: str, **feedback: str) -> None:
    assert requests.post(f"{url}/v1/feedback", json={"request_id": name, **feedback}, timeout=30).json()[
        "is_known"
    ]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of a server that was asked by three users."""
    folder = tmp_path / "log"
    section = HttpSection(insecure=True, request_log={"folder": str(folder), "feedback": True})  # type: ignore[arg-type]
    with listening(build_app(ToldBackend(pieces=["It is", " nine."]), section)) as url:
        say(url, ask(url, "What is four and five?", "ann"), rating="up")
        say(
            url,
            ask(url, "What is four and six?", "ann"),
            rating="down",
            correction="It is ten, says bob@corp.com.",
        )
        say(url, ask(url, "What is four and seven?", "ben"), rating="down")
        say(url, ask(url, "Is it late, jane.doe@corp.com?", "ben"), rating="up")
        say(url, ask(url, "Nobody may keep this.", "cat", store=False), rating="up")
        ask(url, "Nobody judged this.", "cat")
        for i in range(8):
            name = ask(url, f"Please tell me again how the long story of the river goes, number {i}.", "dan")
            say(
                url,
                name,
                rating="down",
                correction="Buy the coins of the bank of the river, they are the best.",
            )
    return folder


def test_what_agrees_is_good_and_is_no_poison_is_taken_once(log: Path, told: Told) -> None:
    done = told("interactions", "collect", "--log", log)[1]
    assert (done["num_answers"], done["num_new"]) == (13, 11)
    assert done["left_out"] == {"low quality: feedback": 2}
    assert len(done["quarantined"]) == 8
    assert all(
        "flood: one of 8 rows that are alike, by 1 user" in one for one in done["quarantined"].values()
    )
    shown = told("interactions", "list", "--state", "ready")[1]
    assert shown["counts"]["free"] == 3 and shown["counts"]["quarantined"] == 8
    assert {(row["prompt"][0]["content"], row["target"], row["source"]) for row in shown["rows"]} == {
        ("What is four and five?", "It is nine.", "answer"),
        ("What is four and six?", "It is ten, says [email].", "correction"),
        ("Is it late, [email]?", "It is nine.", "answer"),
    }
    again = told("interactions", "collect", "--log", log)[1]
    assert again["num_new"] == 0 and again["left_out"]["known before"] == 11

    poison = [*done["quarantined"]]
    assert told("interactions", "refuse", *poison[:7])[1]["changed"] == 7
    assert told("interactions", "accept", poison[7], "--why", "asked dan")[1]["changed"] == 1
    assert told("interactions", "list")[1]["counts"]["free"] == 4


def test_what_is_logged_without_consent_is_never_learned(tmp_path: Path, told: Told) -> None:
    """A server that logs every request keeps those of users who said nothing of it, for monitoring alone."""
    folder = tmp_path / "log"
    logged = {"folder": str(folder), "feedback": True, "share": 1.0}
    section = HttpSection(insecure=True, request_log=logged)  # type: ignore[arg-type]
    with listening(build_app(ToldBackend(pieces=["It is", " nine."]), section)) as url:
        say(url, ask(url, "What is four and five?", "ann"), rating="up")
        say(url, ask(url, "Nobody may learn this.", "cat", store=None), rating="up")
        say(url, ask(url, "Nor this.", "cat", store=None), correction="No.")
    done = told("interactions", "collect", "--log", folder)[1]
    assert (done["num_answers"], done["num_new"]) == (3, 1)
    assert done["left_out"] == {"no consent": 2}
    (row,) = told("interactions", "list")[1]["rows"]
    assert row["prompt"][0]["content"] == "What is four and five?"


def test_a_prompt_of_token_ids_is_no_row(tmp_path: Path, told: Told) -> None:
    """The log keeps no words of it."""
    folder = tmp_path / "log"
    section = HttpSection(insecure=True, request_log={"folder": str(folder), "feedback": True})  # type: ignore[arg-type]
    with listening(build_app(ToldBackend(pieces=["It is", " nine."]), section)) as url:
        for prompt in ([1, 2, 3], "What is four and five?"):
            say(url, ask(url, prompt, "ann"), rating="up")
    assert told("interactions", "collect", "--log", folder)[1]["num_new"] == 1
    (row,) = told("interactions", "list")[1]["rows"]
    assert row["prompt"][0]["content"] == "What is four and five?"


def test_what_a_detector_failed_on_is_no_row(log: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(text: str) -> list[Any]:
        raise ValueError(text)

    monkeypatch.setattr("raytrain.monitoring.learning.collect.build_detectors", lambda: {"own": failing})
    done = told("interactions", "collect", "--log", log)[1]
    assert done["num_new"] == 0 and done["left_out"]["a detector failed"] == 11


def test_a_user_is_forgotten_in_the_log_and_in_the_pool(log: Path, told: Told) -> None:
    told("interactions", "collect", "--log", log)
    done = told("data", "forget", "ann", "--log", log)[1]
    assert done["users"] == [pseudonym("ann")]
    assert (done["num_rows"], done["num_logged"], done["run_ids"], done["versions"]) == (2, 4, [], [])
    left = [row for file in log.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert not [row for row in left if "four and five" in json.dumps(row, default=str)]
    assert not [row for row in left if "It is ten" in json.dumps(row, default=str)]
    assert len([row for row in left if row.get("prompts")]) == 11, "those of others stay"
    again = told("data", "forget", pseudonym("ann"), "--log", log)[1]
    assert (again["num_rows"], again["num_logged"]) == (2, 0), "the pool remembers that there were rows"
    told("interactions", "collect", "--log", log)
    assert told("interactions", "list")[1]["counts"]["forgotten"] == 2


def test_bad_input(log: Path, tmp_path: Path, told: Told) -> None:
    nothing = told("interactions", "collect", "--log", tmp_path / "none")[1]
    assert nothing["num_answers"] == 0 and "there is no folder" in nothing["notes"][0]
    newest = sorted(log.glob("requests-*.parquet"))[-1]
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    half = told("interactions", "collect", "--log", log)[1]
    assert any(newest.name in note for note in half["notes"]), half
    code, refused = told("data", "forget", "ann", "--log", log)
    assert code == 4 and "it may hold rows of this user" in refused["error"]["fix"], refused
    assert told("interactions", "collect", "--log", log, "learning.min_qualty=1")[0] == 2
    assert told("interactions", "list", "--state", "gone")[0] == 2
    assert told("interactions", "release", "nobody")[1]["released"] == 0

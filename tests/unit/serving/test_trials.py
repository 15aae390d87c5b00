"""Who takes part in a trial, what the client is told, and what is kept of both answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests
from answering_backends import BASE_DIGEST, CARDS, listening, wait_until

from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.serving.backend import (
    AnswerFailed,
    Ask,
    BadPrompt,
    Draining,
    ModelCard,
    Readiness,
    ReplicaLost,
    Served,
    TrialState,
    Undecided,
)
from raytrain.serving.engine.request import Finish, Overloaded, Piece
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection
from raytrain.serving.remote import combined
from raytrain.serving.section import ServingSection
from raytrain.serving.trials.assignment import caller_of, takes_part, trial_of
from raytrain.serving.trials.log import fits
from raytrain.serving.trials.section import TrialSection

pytestmark = pytest.mark.whole

OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@dataclass
class TwoVersions:
    """Answers of production and a candidate as a test says."""

    is_on: bool = True
    texts: dict[str, str] = field(
        default_factory=lambda: {"production": "old words", "candidate": "new words"}
    )
    refusal: Exception | None = None
    """Of the candidate."""
    break_off: Exception | None = None
    """The same, once it has begun to answer."""
    candidate_takes_s: float = 0.0
    asks: list[Ask] = field(default_factory=list)

    async def generate(self, ask: Ask) -> AsyncIterator[Served | Piece]:
        self.asks.append(ask)
        arm = ask.arm if self.is_on else None
        if arm == "candidate":
            await asyncio.sleep(self.candidate_takes_s)
            if self.refusal is not None:
                raise self.refusal
        side = "candidate" if arm == "candidate" or ask.model == "helper@1.3.0" else "production"
        yield Served(
            f"helper@1.{3 if side == 'candidate' else 2}.0",
            NEW if side == "candidate" else OLD,
            BASE_DIGEST,
            arm,
        )
        yield Piece(self.texts[side])
        if arm == "candidate" and self.break_off is not None:
            raise self.break_off
        yield Piece("", (), Finish("stop", 5, 2, 3, 0.001, 0.002))

    async def models(self) -> list[ModelCard]:
        return CARDS

    async def readiness(self) -> Readiness:
        state = TrialState("helper", "staging", "canary", 0.5, "ended", "helper@1.3.0 is in production")
        return Readiness(True, "tiny", {"helper": OLD}, (), {}, (state,))


def section_of(folder: Path, **kept: Any) -> HttpSection:
    return HttpSection(insecure=True, request_log={"folder": str(folder), **kept})  # type: ignore[arg-type]


def rows(folder: Path, kind: str = "trials") -> list[dict[str, Any]]:
    return [
        row for file in sorted(folder.glob(f"{kind}-*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


def post(url: str, **body: Any) -> requests.Response:
    return requests.post(
        f"{url}/v1/completions", json={"model": "helper", "prompt": "x", "temperature": 0, **body}, timeout=30
    )


def test_the_same_caller_is_always_on_the_same_side() -> None:
    small, large = (TrialSection(name="helper", share=share) for share in (0.1, 0.3))
    callers = [caller_of(f"user-{number}", "any") for number in range(4000)]
    few, many = ({one for one in callers if takes_part(trial, one)} for trial in (small, large))
    assert abs(len(few) / 4000 - 0.1) < 0.02 and abs(len(many) / 4000 - 0.3) < 0.03
    assert few < many, "whoever takes part still does when the share grows"
    other = TrialSection(name="helper", candidate="1.3.0", share=0.1)
    assert few != {one for one in callers if takes_part(other, one)}
    # Written down: a change of the rule would move everybody to another side.
    assert caller_of("jane", "any") == caller_of("jane", "other") == "dd96a7a777fd4c7f"
    assert caller_of(None, "jane") != caller_of("jane", "jane")


def test_a_version_or_an_alias_is_never_rerouted() -> None:
    trials = [TrialSection(name="helper", share=1.0)]
    assert trial_of("helper", trials) is trials[0]
    for model in ("helper@1.2.0", "helper@production", "helper@staging", "other", "tiny"):
        assert trial_of(model, trials) is None


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ([{"name": "a"}, {"name": "a", "candidate": "dev"}], "two for a"),
        ([{"name": "a", "candidate": "production"}], "neither dev nor staging"),
        ([{"name": "a@b"}], "pattern"),
        ([{"name": "a", "share": 0.0}], "greater than 0"),
    ],
)
def test_a_trial_that_makes_no_sense_is_refused(trials: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ServingSection.model_validate({"base_model": "b", "trials": trials})


def test_a_canary_answers_its_callers_and_says_so(tmp_path: Path) -> None:
    trial, backend = TrialSection(name="helper", mode="canary", share=0.5), TwoVersions()
    users = [f"user-{number}" for number in range(12)]
    expected = {one: takes_part(trial, caller_of(one, "")) for one in users}
    assert len(set(expected.values())) == 2
    with listening(build_app(backend, section_of(tmp_path, feedback=True), trials=[trial])) as url:
        for user in users:
            for _ in range(2):
                answer = post(url, user=user)
                side = "candidate" if expected[user] else "production"
                assert answer.headers["x-raytrain-trial"] == answer.json()["raytrain"]["trial"] == side
                assert answer.json()["choices"][0]["text"] == backend.texts[side]
        explicit = post(url, model="helper@1.2.0", user=users[0])
        assert "x-raytrain-trial" not in explicit.headers and "trial" not in explicit.json()["raytrain"]
        rated = {"request_id": answer.json()["id"], "rating": "up"}
        assert requests.post(f"{url}/v1/feedback", json=rated, timeout=30).json()["is_known"]
        streamed = post(url, user=users[0], stream=True)
        assert '"trial":' in streamed.text and streamed.headers["x-raytrain-trial"]
        numbers = requests.get(f"{url}/metrics", timeout=30).text
        assert 'raytrain_trial_answers_total{arm="candidate",name="helper"}' in numbers
        (state,) = requests.get(f"{url}/ready", timeout=30).json()["trials"]
        assert (state["standing"], state["why"]) == ("ended", "helper@1.3.0 is in production")
    kept = rows(tmp_path)
    assert len(kept) == 2 * len(users) + 1, "an explicit version is no part of it"
    assert {(one["arm"], one["digest"]) for one in kept} == {("production", OLD), ("candidate", NEW)}
    assert rows(tmp_path, "feedback")[0]["arm"] == ("candidate" if expected[users[-1]] else "production")


def test_several_answers_to_one_request_are_of_one_side(tmp_path: Path) -> None:
    backend = TwoVersions()
    app = build_app(
        backend, section_of(tmp_path), trials=[TrialSection(name="helper", mode="canary", share=1.0)]
    )
    with listening(app) as url:
        answer = post(url, n=3)
    assert answer.headers["x-raytrain-trial"] == "candidate"
    assert [(one.model, one.arm) for one in backend.asks] == [
        ("helper", "candidate"), ("helper@1.3.0", None), ("helper@1.3.0", None),
    ]  # fmt: skip


def test_a_trial_that_has_ended_leaves_no_trace(tmp_path: Path) -> None:
    backend = TwoVersions(is_on=False)
    for mode in ("canary", "shadow"):
        app = build_app(
            backend, section_of(tmp_path), trials=[TrialSection(name="helper", mode=mode, share=1.0)]
        )
        with listening(app) as url:
            answer = post(url)
            assert answer.json()["choices"][0]["text"] == "old words"
            assert "x-raytrain-trial" not in answer.headers
    assert rows(tmp_path) == [] and len(backend.asks) == 2


def test_a_shadow_is_asked_beside_and_both_are_kept(tmp_path: Path) -> None:
    backend = TwoVersions()
    section = section_of(tmp_path, share=1.0).model_copy(update={"num_ingresses": 2})
    app = build_app(backend, section, trials=[TrialSection(name="helper", share=1.0)])
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    with listening(app) as url:
        whole = post(url, response_format=wanted, user="jane")
        assert whole.json()["choices"][0]["text"] == "old words"
        assert whole.headers["x-raytrain-trial"] == "production"
        backend.texts = {"production": "7", "candidate": "7"}
        post(url, response_format=wanted, stream=True)
        wait_until(lambda: len(backend.asks) == 4, "both are mirrored")
        wait_until(
            lambda: (
                'mirrored_requests{outcome="compared"} 2.0' in requests.get(f"{url}/metrics", timeout=9).text
            ),
            "both are counted",
        )
    kept = {(one["pair"], one["arm"]): one for one in rows(tmp_path)}
    assert len(kept) == 4 and len({pair for pair, _ in kept}) == 2
    told = sorted((one["arm"], one["agrees"], one["is_valid"], one["is_greedy"]) for one in kept.values())
    assert told == [
        ("candidate", False, False, True), ("candidate", True, True, True),
        ("production", False, False, True), ("production", True, True, True),
    ]  # fmt: skip
    assert [one["seconds"] is None for one in kept.values()].count(True) == 2, "a reader may be slow"
    (by,) = {(one["ingress"], one["num_ingresses"], one["flush_s"]) for one in kept.values()}
    assert by[0] and by[1:] == (2, 30.0), "who reads them knows by this what may still be written"
    words = rows(tmp_path, "requests")
    assert sorted((one["pair"], one["arm"]) for one in words) == sorted(kept)
    assert {one["digest"] for one in words} == {OLD, NEW}
    assert [one["user"] for one in words].count(pseudonym("jane")) == 2, (
        "its mirrored one can be forgotten too"
    )
    mirrored = [one for one in backend.asks if one.is_mirror]
    assert len({one.id for one in backend.asks}) == 4 and len(mirrored) == 2
    assert "words" not in str(rows(tmp_path))


@pytest.mark.parametrize(
    ("refusal", "outcome", "error"),
    [
        (Overloaded(40, 1.0), "dropped", None),
        (ReplicaLost("x"), "dropped", None),
        (Draining(), "dropped", None),
        (Undecided("helper@1.3.0"), "dropped", None),
        (BadPrompt("the chat template refuses it", "messages"), "failed", "invalid_prompt"),
        (RuntimeError("the engine"), "failed", "internal_error"),
    ],
)
def test_a_candidate_that_fails_harms_no_client(
    tmp_path: Path, refusal: Exception, outcome: str, error: str | None
) -> None:
    backend = TwoVersions(refusal=refusal)
    app = build_app(backend, section_of(tmp_path), trials=[TrialSection(name="helper", share=1.0)])
    with listening(app) as url:
        assert post(url).json()["choices"][0]["text"] == "old words"
        line = f'mirrored_requests{{outcome="{outcome}"}} 1.0'
        wait_until(lambda: line in requests.get(f"{url}/metrics", timeout=9).text, "it is counted")
        lost = 'raytrain_request_log_rows_left_out{kind="trials"} 0.0'
        assert lost in requests.get(f"{url}/metrics", timeout=9).text
    assert [(one["arm"], one["error"]) for one in rows(tmp_path)] == (
        [("production", error)] if error else []
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AnswerFailed("nan"), "engine_error"),
        (RuntimeError("the engine"), "internal_error"),
        (Overloaded(40, 1.0), None),
        (ReplicaLost("x"), None),
        (BadPrompt("the chat template refuses it", "messages"), None),
    ],
)
@pytest.mark.parametrize("way", ["before it is known who answers", "whole", "streamed"])
def test_what_a_canary_s_candidate_could_not_answer_is_kept(
    tmp_path: Path, error: Exception, code: str | None, way: str
) -> None:
    backend = TwoVersions()
    setattr(backend, "refusal" if way.startswith("before") else "break_off", error)
    app = build_app(
        backend, section_of(tmp_path), trials=[TrialSection(name="helper", mode="canary", share=1.0)]
    )
    with listening(app) as url:
        assert "error" in post(url, stream=way == "streamed").text
    known = None if way.startswith("before") else NEW
    assert [(one["arm"], one["digest"], one["error"]) for one in rows(tmp_path)] == (
        [("candidate", known, code)] if code else []
    )


def test_nobody_waits_for_a_candidate(tmp_path: Path) -> None:
    backend = TwoVersions(candidate_takes_s=3600)
    app = build_app(backend, section_of(tmp_path), trials=[TrialSection(name="helper", share=1.0)])
    with listening(app) as url:
        began = time.monotonic()
        for _ in range(70):
            assert post(url).status_code == 200
        assert time.monotonic() - began < 60
        line = 'mirrored_requests{outcome="dropped"} 6.0'
        assert line in requests.get(f"{url}/metrics", timeout=9).text, "64 are asked at a time, not more"
    assert rows(tmp_path) == []


def test_what_is_whole_json() -> None:
    slow = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a?){60}a{60}$"}}}
    text = json.dumps({"a": "a" * 60})
    assert fits(text, slow), "a client's pattern is not tried again: it would take for ever"
    assert fits("{}", {}) and not fits(text[:-1], slow) and not fits("7", {}) and not fits("[" * 100_000, {})


def test_replicas_tell_one_state_of_a_trial() -> None:
    def one(standing: str) -> Readiness:
        return Readiness(
            True, "b", {}, (), {}, (TrialState("a", "staging", "shadow", 0.1, standing, standing),)
        )

    assert [t.standing for t in combined([one("running"), one("running")]).trials] == ["running"]
    assert [t.standing for t in combined([one("running"), one("ended")]).trials] == ["ended"]
    assert [t.standing for t in combined([one("waiting"), one("running")]).trials] == ["waiting"]

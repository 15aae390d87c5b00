"""/v1/classify: what is asked, what is told, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests
from answering_backends import ToldBackend, listening, wait_until

from raytrain.serving.backend import AnswerFailed, PromptTooLong, ReplicaLost, other_task
from raytrain.serving.engine.request import Overloaded
from raytrain.serving.http.app import build_app
from raytrain.serving.http.keys import KeyFile
from raytrain.serving.http.section import HttpSection

TEXTS: dict[str, Any] = {"model": "helper", "input": ["short", "a text that is longer"]}


@pytest.fixture(scope="module")
def backend() -> ToldBackend:
    return ToldBackend()


@pytest.fixture(scope="module")
def url(backend: ToldBackend) -> Iterator[str]:
    with listening(build_app(backend, HttpSection(insecure=True))) as url:
        yield url


@pytest.fixture(autouse=True)
def fresh(backend: ToldBackend) -> None:
    backend.__init__()  # type: ignore[misc]


def ask(url: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(f"{url}/v1/classify", json=body, headers=headers, timeout=30)


def test_each_text_gets_its_class_in_the_shape_that_clients_know(url: str, backend: ToldBackend) -> None:
    response = ask(url, TEXTS, **{"x-request-id": "r1"})
    assert response.status_code == 200, response.text
    told = response.json()
    origin = told.pop("raytrain")
    assert origin == {"model": "helper@1.2.0", "digest": "1" * 64, "base_digest": "ba5e" * 16}
    assert response.headers["x-raytrain-digest"] == "1" * 64
    assert response.headers["x-raytrain-model"] == "helper@1.2.0"
    assert told.pop("created") > 1_700_000_000
    chances = [[1 - 1 / 3, 1 / 3], [1 - 21 / 31, 21 / 31]]
    assert told == {
        "id": "classify-r1",
        "object": "list",
        "model": "helper@1.2.0",
        "labels": ["short", "long"],
        "data": [
            {"index": 0, "label": "short", "probs": pytest.approx(chances[0]), "num_classes": 2},
            {"index": 1, "label": "long", "probs": pytest.approx(chances[1]), "num_classes": 2},
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 0,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    assert backend.to_classify[0].texts == ("short", "a text that is longer")
    single = ask(url, {"model": "helper", "input": "one", "user": "u-1"}).json()
    assert [one["index"] for one in single["data"]] == [0]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"model": "helper"}, "missing_required_parameter", "input"),
        ({"input": "x"}, "missing_required_parameter", "model"),
        ({**TEXTS, "input": ""}, "invalid_value", "input"),
        ({**TEXTS, "input": []}, "invalid_value", "input"),
        ({**TEXTS, "input": ["a", ""]}, "invalid_value", "input.1"),
        ({**TEXTS, "input": [1, 2]}, "invalid_value", "input"),
        ({**TEXTS, "input": {"text": "a"}}, "invalid_value", "input"),
        ({**TEXTS, "input": None}, "invalid_value", "input"),
        ({**TEXTS, "model": 3}, "invalid_type", "model"),
        ({**TEXTS, "inputs": "x"}, "unknown_parameter", "inputs"),
        ({**TEXTS, "stream": True}, "unknown_parameter", "stream"),
    ],
)
def test_a_bad_body_is_refused_and_asks_nobody(
    url: str, backend: ToldBackend, body: Any, code: str, param: str
) -> None:
    response = ask(url, body)
    assert response.status_code == 400, response.text
    told = response.json()["error"]
    assert (told["code"], told["type"]) == (code, "invalid_request_error"), told
    assert told["param"].startswith(param.partition(".")[0]), told
    assert backend.to_classify == []


@pytest.mark.parametrize(
    ("refusal", "status", "code", "said"),
    [
        (PromptTooLong("99 tokens; the model's context is 64", "input"), 400, "context_length_exceeded", "64"),
        (other_task("sums@1.0.0", "causal_lm"), 400, "model_has_other_task", "ask /v1/completions"),
        (Overloaded(256, 1.0), 429, "queue_full", "256"),
        (AnswerFailed(), 500, "engine_error", "no number"),
        (ReplicaLost("r"), 503, "replica_lost", "ask again"),
        (TimeoutError(), 504, "timeout", "longer"),
        (RuntimeError("secret at /root"), 500, "internal_error", "operator"),
    ],
)  # fmt: skip
def test_a_refusal_has_its_status(
    url: str, backend: ToldBackend, refusal: Exception, status: int, code: str, said: str
) -> None:
    backend.refusal = refusal
    response = ask(url, TEXTS)
    told = response.json()["error"]
    assert (response.status_code, told["code"]) == (status, code)
    assert said in told["message"] and "/root" not in response.text
    assert ("retry-after" in response.headers) == (status in (429, 503))


def test_a_classifier_that_is_asked_to_write_says_what_it_does(url: str, backend: ToldBackend) -> None:
    backend.refusal = other_task("tools@1.0.0", "sequence_classification")
    body = {"model": "helper", "prompt": "Hi"}
    for stream in (False, True):
        response = requests.post(f"{url}/v1/completions", json={**body, "stream": stream}, timeout=30)
        assert response.status_code == 400
        told = response.json()["error"]
        assert (told["code"], told["param"]) == ("model_has_other_task", "model")
        assert "ask /v1/classify" in told["message"]


def test_unknown_and_revoked_models_are_told_as_elsewhere(url: str) -> None:
    unknown = ask(url, {**TEXTS, "model": "nobody"})
    assert unknown.status_code == 404 and "helper@production" in unknown.json()["error"]["message"]
    assert ask(url, {**TEXTS, "model": "../etc"}).status_code == 404
    assert ask(url, {**TEXTS, "model": "revoked"}).status_code == 403


def test_a_key_may_ask_its_models_only(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    token = file.add("search-team", ["other"])
    with listening(build_app(ToldBackend(), HttpSection(api_keys=str(file.path)))) as url:
        assert ask(url, TEXTS).status_code == 401
        refused = ask(url, TEXTS, authorization=f"Bearer {token}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_in_scope")


def test_when_the_client_goes_the_question_is_taken_back(url: str, backend: ToldBackend) -> None:
    backend.waits_after = 0
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(f"{url}/v1/classify", json=TEXTS, timeout=0.5)
    wait_until(lambda: len(backend.closed) == 1, "the question is cancelled")


def test_it_is_counted_and_kept(tmp_path: Path) -> None:
    kept = {"share": 1.0, "feedback": True, "folder": str(tmp_path / "log")}
    section = HttpSection(insecure=True, request_log=kept)  # type: ignore[arg-type]
    with listening(build_app(ToldBackend(), section)) as url:
        texts = ["short", "write to jane.doe@corp.com"]
        answer = ask(url, {**TEXTS, "input": texts}).json()
        ask(url, {**TEXTS, "input": ""})
        thumbs = {"request_id": answer["id"], "rating": "down", "correction": "long"}
        assert requests.post(f"{url}/v1/feedback", json=thumbs, timeout=30).json()["is_known"]
        page = requests.get(f"{url}/metrics", timeout=30).text
    assert 'raytrain_http_requests_total{route="/v1/classify",status="200"} 1.0' in page
    assert 'raytrain_http_requests_total{route="/v1/classify",status="400"} 1.0' in page
    assert 'raytrain_tokens_total{kind="prompt"} 10.0' in page
    (file,) = (tmp_path / "log").glob("requests-*.parquet")
    (row,) = pq.read_table(file).to_pylist()
    assert row["prompts"] == ["short", "write to [email]"]
    assert (row["route"], row["model"], row["digest"]) == ("/v1/classify", "helper@1.2.0", "1" * 64)
    assert [json.loads(one) for one in row["answers"]] == [
        pytest.approx(dict(zip(["short", "long"], one["probs"], strict=True))) for one in answer["data"]
    ]


def test_openapi_tells_it(url: str) -> None:
    written = requests.get(f"{url}/openapi.json", timeout=30).json()
    told = written["paths"]["/v1/classify"]["post"]
    assert told["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ClassifyBody")
    assert list(told["responses"]["200"]["content"]) == ["application/json"]
    assert told["security"] == [{"key": []}]
    assert written["components"]["schemas"]["ClassifyBody"]["required"] == ["model", "input"]

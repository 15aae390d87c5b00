"""What is wrong with a request is told as OpenAI tells it, and nothing else is."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import requests
from answering_backends import ToldBackend, listening

from raytrain.errors import ConfigError
from raytrain.serving.backend import (
    Ask,
    BadPrompt,
    ModelCard,
    PromptTooLong,
    RefusedModel,
    ReplicaLost,
    Served,
)
from raytrain.serving.engine.request import Overloaded, Piece
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection

CHAT: dict[str, Any] = {"model": "helper", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "helper", "prompt": "Hi"}


@pytest.fixture(scope="module")
def backend() -> ToldBackend:
    return ToldBackend()


@pytest.fixture(scope="module")
def url(backend: ToldBackend) -> Iterator[str]:
    with listening(build_app(backend, HttpSection(insecure=True, max_body_bytes=64 * 1024))) as url:
        yield url


@pytest.fixture(autouse=True)
def fresh(backend: ToldBackend) -> None:
    backend.__init__()  # type: ignore[misc]


def ask(url: str, body: Any, route: str = "completions") -> requests.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(
        f"{url}/v1/{route}", content, headers={"content-type": "application/json"}, timeout=30
    )


def error_of(response: requests.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    told: dict[str, Any] = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert set(told) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return told


BAD_BODIES: list[tuple[str, Any, str, str | None]] = [
    ("completions", b'{"model": ', "invalid_json", None),
    ("completions", b"", "invalid_json", None),
    ("completions", b"[]", "invalid_type", None),
    ("completions", b'{"model": "helper", "prompt": "\xff\xfe"}', "invalid_json", None),
    ("completions", b'{"model": "helper", "prompt": "\\ud800"}', "invalid_json", None),
    ("completions", b'{"model": "helper", "prompt": "x", "temperature": NaN}', "invalid_json", None),
    ("completions", b'{"model": "helper", "prompt": "x", "seed": ' + b"9" * 5000 + b"}", "invalid_json", None),
    ("completions", b'{"model": "helper", "prompt": ' + b"[" * 3000 + b"]" * 3000 + b"}", "invalid_json", None),
    ("completions", b'{"model": "helper", "prompt": ' + b"[" * 70 + b"]" * 70 + b"}", "invalid_json", None),
    ("completions", {"prompt": "x"}, "missing_required_parameter", "model"),
    ("completions", {"model": "helper"}, "missing_required_parameter", "prompt"),
    ("completions", {**TEXT, "prompt": ""}, "invalid_value", "prompt"),
    ("completions", {**TEXT, "prompt": []}, "invalid_value", "prompt"),
    ("completions", {**TEXT, "prompt": ["a", 1]}, "invalid_value", "prompt"),
    ("completions", {**TEXT, "prompt": [True]}, "invalid_value", "prompt"),
    ("completions", {**TEXT, "prompt": {"a": 1}}, "invalid_value", "prompt"),
    ("completions", {**TEXT, "max_tokens": -1}, "invalid_value", "max_tokens"),
    ("completions", {**TEXT, "max_tokens": 0}, "invalid_value", "max_tokens"),
    ("completions", {**TEXT, "max_tokens": "9"}, "invalid_type", "max_tokens"),
    ("completions", {**TEXT, "max_tokens": True}, "invalid_type", "max_tokens"),
    ("completions", {**TEXT, "temperature": 2.5}, "invalid_value", "temperature"),
    ("completions", b'{"model": "helper", "prompt": "x", "temperature": 1e999}', "invalid_value", "temperature"),
    ("completions", {**TEXT, "top_p": 0}, "invalid_value", "top_p"),
    ("completions", {**TEXT, "stop": list("abcde")}, "invalid_value", "stop"),
    ("completions", {**TEXT, "stop": ""}, "invalid_value", "stop"),
    ("completions", {**TEXT, "logprobs": 6}, "invalid_value", "logprobs"),
    ("completions", {**TEXT, "n": 17}, "too_many_answers", "n"),
    ("completions", {**TEXT, "max_token": 9}, "unknown_parameter", "max_token"),
    ("completions", {**TEXT, "echo": True}, "unsupported_parameter", "echo"),
    ("completions", {**TEXT, "stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    ("completions", {**TEXT, "response_format": {"type": "xml"}}, "invalid_value", "response_format"),
    ("chat/completions", {"model": "helper", "messages": []}, "invalid_value", "messages"),
    ("chat/completions", {**CHAT, "messages": [{"role": "robot", "content": "x"}]}, "invalid_value", "messages.0.role"),
    ("chat/completions", {**CHAT, "messages": [{"role": "user", "content": 1}]}, "invalid_value", "messages.0.content"),
    ("chat/completions", {**CHAT, "messages": [{"role": "user", "content": "x", "nam": 1}]},
     "unknown_parameter", "messages.0.nam"),
    ("chat/completions", {**CHAT, "tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
    ("chat/completions", {**CHAT, "web_search_options": {}}, "unsupported_parameter", "web_search_options"),
    ("chat/completions", {**CHAT, "frequency_penalty": 0.5}, "unsupported_parameter", "frequency_penalty"),
    ("chat/completions", {**CHAT, "top_logprobs": 2}, "invalid_value", "top_logprobs"),
    ("chat/completions", {**CHAT, "max_tokens": 2, "max_completion_tokens": 3}, "invalid_value", "max_tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "body", "code", "param"), BAD_BODIES)
def test_a_bad_body_is_refused_and_asks_nobody(
    url: str, backend: ToldBackend, route: str, body: Any, code: str, param: str | None
) -> None:
    told = error_of(ask(url, body, route), 400)
    assert (told["code"], told["param"]) == (code, param), told
    assert told["type"] == "invalid_request_error"
    assert backend.asks == []


def test_an_unknown_field_names_the_nearest(url: str) -> None:
    assert "did you mean `max_tokens`?" in error_of(ask(url, {**TEXT, "max_token": 9}), 400)["message"]
    message = {"role": "user", "content": "x", "contnt": "y"}
    told = error_of(ask(url, {**CHAT, "messages": [message]}, "chat/completions"), 400)
    assert "did you mean `content`?" in told["message"]


def test_what_is_neutral_and_null_is_let_through(url: str, backend: ToldBackend) -> None:
    neutral = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "user": "u-1", "stop": None,
               "n": None, "temperature": None, "tools": [], "store": False}  # fmt: skip
    assert ask(url, {**CHAT, **neutral}, "chat/completions").status_code == 200
    assert ask(url, {**TEXT, "echo": False, "best_of": 1, "suffix": ""}).status_code == 200
    chat, text = (one.sampling for one in backend.asks)
    assert (chat.temperature, chat.top_p, chat.max_new_tokens, chat.top_logprobs) == (1.0, 1.0, 0, None)
    assert (text.temperature, text.max_new_tokens) == (1.0, 16)
    assert chat.seed != text.seed


def test_what_is_asked_of_the_choice_of_tokens_reaches_it(url: str, backend: ToldBackend) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}}
    told = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    asked = {"top_p": 0.25, "temperature": 0.5, "seed": 7, "stop": ["a", "b"]}
    for form in ({"type": "json_object"}, told, {"type": "text"}):
        body = {**asked, "response_format": form}
        assert ask(url, {**CHAT, **body, "max_tokens": 9}, "chat/completions").status_code == 200
        assert ask(url, {**TEXT, **body, "max_tokens": 9}).status_code == 200
    found = [one.sampling for one in backend.asks]
    assert {(one.top_p, one.temperature, one.seed, one.stop, one.max_new_tokens) for one in found} == {
        (0.25, 0.5, 7, ("a", "b"), 9)
    }
    assert [one.json_schema for one in found] == [{}, {}, schema, schema, None, None]


def test_a_developer_is_the_system_and_parts_are_one_text(url: str, backend: ToldBackend) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"model": "helper", "messages": [{"role": "developer", "content": parts}]}
    assert ask(url, body, "chat/completions").status_code == 200
    assert backend.asks[0].prompt == ({"role": "system", "content": "ab"},)


@pytest.mark.parametrize(
    "model", ["nobody", "../etc/passwd", "helper@../../x", "a\nb", "x" * 300, "/etc/passwd"]
)
def test_an_unknown_model_is_told_with_the_list(url: str, backend: ToldBackend, model: str) -> None:
    told = error_of(ask(url, {**TEXT, "model": model}), 404)
    assert told["code"] == "model_not_found"
    assert "Models: tiny, helper, helper@production" in told["message"]
    assert [one.model for one in backend.asks] == (["nobody"] if model == "nobody" else []), (
        "it is never handed on"
    )


REFUSALS: list[tuple[Exception, int, str, str | None]] = [
    (PromptTooLong("9 tokens exceed the room of 8", "max_tokens"), 400, "context_length_exceeded", "max_tokens"),
    (BadPrompt("no template gives a context for tools", "messages"), 400, "invalid_prompt", "messages"),
    (ConfigError("no such schema", why="w", fix="f"), 400, "invalid_json_schema", "response_format"),
    (Overloaded(64, 3.2), 429, "queue_full", None),
    (TimeoutError(), 504, "timeout", None),
    (RuntimeError("secret at /root/models"), 500, "internal_error", None),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("refusal", "status", "code", "param"), REFUSALS)
def test_a_refusal_has_its_status_streamed_or_not(
    url: str,
    backend: ToldBackend,
    refusal: Exception,
    status: int,
    code: str,
    param: str | None,
    stream: bool,
) -> None:
    backend.refusal = refusal
    response = ask(url, {**TEXT, "stream": stream})
    told = error_of(response, status)
    assert (told["code"], told["param"]) == (code, param)
    assert "/root" not in response.text + str(response.headers)
    assert response.headers.get("retry-after") == ("4" if status == 429 else None)


def test_a_revoked_version_is_forbidden(url: str) -> None:
    told = error_of(ask(url, {**TEXT, "model": "revoked"}), 403)
    assert (told["type"], told["code"]) == ("permission_error", "model_refused")


@pytest.mark.parametrize("reason", ["error", "cancelled"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_fails_is_no_answer(url: str, backend: ToldBackend, reason: Any, stream: bool) -> None:
    backend.reason = reason
    response = ask(url, {**TEXT, "stream": stream})
    if not stream:
        assert error_of(response, 500 if reason == "error" else 503)["type"] == "server_error"
        return
    events = response.text.strip().split("\n\n")
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in response.text


def test_a_fault_in_mid_stream_is_told_without_its_message(
    url: str, backend: ToldBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.fault = RuntimeError("the prompt was Hi")
    with caplog.at_level(logging.ERROR):
        response = ask(url, {**TEXT, "stream": True})
    *pieces, last = response.text.strip().split("\n\n")
    assert [json.loads(one[6:])["choices"][0]["text"] for one in pieces] == ["Hello", " there"]
    assert json.loads(last[6:])["error"]["code"] == "internal_error"
    assert "prompt was" not in response.text + caplog.text
    assert len(backend.closed) == 1


def test_answers_of_one_request_are_of_one_digest(url: str, backend: ToldBackend) -> None:
    assert ask(url, {**TEXT, "n": 3}).status_code == 200
    assert [one.model for one in backend.asks] == ["helper", "helper@1.2.0", "helper@1.2.0"]
    assert len({one.id for one in backend.asks}) == 3
    always_another = [str(number) * 64 for number in range(1, 7)]
    backend.__init__(digests=always_another)  # type: ignore[misc]
    assert error_of(ask(url, {**TEXT, "n": 3}), 503)["code"] == "model_changed"
    assert len(backend.closed) == 6


def test_a_model_that_is_replaced_between_two_answers_is_asked_once_more_for_all(
    url: str, backend: ToldBackend
) -> None:
    backend.__init__(digests=["1" * 64, "2" * 64])  # type: ignore[misc]
    response = ask(url, {**TEXT, "n": 2})
    assert (response.status_code, response.headers["x-raytrain-digest"]) == (200, "2" * 64)
    assert [one.model for one in backend.asks] == ["helper", "helper@1.2.0"] * 2
    assert len({one.id for one in backend.asks}) == 4, "an engine may still have the first ones"
    assert sorted(backend.closed) == sorted(one.id for one in backend.asks)


class ExchangedBackend(ToldBackend):
    """Its second answer would come from a replica of the base model before: that has never heard of the version."""

    async def generate(self, ask: Ask) -> AsyncIterator[Served | Piece]:
        if len(self.asks) == 1:
            self.asks.append(ask)
            raise RefusedModel(ask.model)
        async for one in super().generate(ask):
            yield one


def test_answers_that_meet_replicas_of_two_base_models_are_asked_for_once_more() -> None:
    backend = ExchangedBackend()
    with listening(build_app(backend, HttpSection(insecure=True))) as url:
        assert ask(url, {**TEXT, "n": 2}).status_code == 200
        assert [one.model for one in backend.asks] == ["helper", "helper@1.2.0"] * 2
        backend.refusal = RefusedModel("helper")
        error_of(ask(url, {**TEXT, "n": 2}), 403)
        assert len(backend.asks) == 5, "who is refused by the name that he gave is not asked again"


class LostBackend(ToldBackend):
    """None of its replicas lives."""

    async def models(self) -> list[ModelCard]:
        raise ReplicaLost("models")


def test_models_that_nobody_can_tell_are_asked_for_again() -> None:
    with listening(build_app(LostBackend(), HttpSection(insecure=True))) as url:
        answers = [requests.get(f"{url}/v1/models{one}", timeout=30) for one in ("", "/helper")]
        answers += [
            ask(url, {**TEXT, "model": "a\nb"}),
            ask(url, {"model": "a\nb", "input": "x"}, "classify"),
        ]
    for one in answers:
        assert error_of(one, 503)["code"] == "replica_lost" and one.headers["retry-after"]


def test_the_same_request_id_twice_asks_with_different_ids(url: str, backend: ToldBackend) -> None:
    for _ in range(2):
        headers = {"content-type": "application/json", "x-request-id": "twice"}
        response = requests.post(f"{url}/v1/completions", json.dumps(TEXT), headers=headers, timeout=30)
        assert response.headers["x-request-id"] == "twice"
        assert response.json()["id"] == "cmpl-twice"
    assert len({one.id for one in backend.asks}) == 2


@pytest.mark.parametrize("asked", ["a b", "x" * 65, "é", "{}"])
def test_a_request_id_that_is_no_word_is_replaced(url: str, asked: str) -> None:
    told = requests.get(f"{url}/health", headers={"x-request-id": asked.encode()}, timeout=30)
    assert told.headers["x-request-id"].startswith("req-")


def test_a_body_of_10_mb_is_refused_while_it_is_read(url: str) -> None:
    told = error_of(ask(url, b'{"prompt": "' + b"x" * 10_000_000 + b'"}'), 413)
    assert "65536 bytes" in told["message"]

    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 8192

    headers = {"content-type": "application/json"}
    response = requests.post(f"{url}/v1/completions", parts(), headers=headers, timeout=30)
    assert error_of(response, 413)["code"] == "request_too_large"


def test_only_json_is_read_and_only_routes_that_are(url: str) -> None:
    form = requests.post(f"{url}/v1/completions", {"model": "helper"}, timeout=30)
    assert error_of(form, 415)["code"] == "unsupported_media_type"
    assert error_of(requests.get(f"{url}/v1/nothing", timeout=30), 404)["code"] == "route_not_found"
    response = requests.get(f"{url}/v1/completions", timeout=30)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"

"""Clients that leave, that do not read, and that do not send: none of them keeps a place."""

from __future__ import annotations

import json
import socket
import time
from typing import Any
from urllib.parse import urlparse

import pytest
import requests
from answering_backends import EngineBackend, ToldBackend, listening, wait_until

from raytrain.models.inference import LoadedModel
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.section import EngineSection
from raytrain.serving.http.app import build_app
from raytrain.serving.http.section import HttpSection

pytestmark = pytest.mark.whole

TEXT: dict[str, Any] = {"model": "helper", "prompt": "Hi"}
_HEAD = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def connect(url: str, body: dict[str, Any], receive_bytes: int | None = None) -> socket.socket:
    place = urlparse(url)
    client = socket.socket()
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect((place.hostname, place.port))
    content = json.dumps(body).encode()
    client.sendall(f"{_HEAD}content-length: {len(content)}\r\n\r\n".encode() + content)
    return client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_when_the_client_goes_what_it_asked_for_ends(stream: bool, n: int) -> None:
    backend = ToldBackend(waits_after=1)
    with listening(build_app(backend, HttpSection(insecure=True))) as url:
        with connect(url, {**TEXT, "stream": stream, "n": n}):
            wait_until(lambda: backend.num_told == n, "every answer has begun")
            assert backend.closed == []
        wait_until(lambda: len(backend.closed) == n, "every answer is closed")
        page = requests.get(f"{url}/metrics", timeout=30).text
    assert 'raytrain_http_errors_total{code="client_gone"} 1.0' in page


def test_the_engines_place_is_free_once_the_client_is_gone(loaded: LoadedModel) -> None:
    engine = ContinuousEngine(loaded, EngineSection(max_rows=1, max_waiting=0))
    app = build_app(EngineBackend(engine, loaded.tokenizer), HttpSection(insecure=True))
    long = {
        "model": "tiny",
        "prompt": "Hi",
        "max_tokens": 240,
        "seed": 1,
        "stream": True,
        "stop": "\x00never",
    }
    with listening(app) as url:
        for _ in range(5):
            with connect(url, long) as client:
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            wait_until(lambda: engine.stats().running + engine.stats().waiting == 0, "its place is free")
        answer = requests.post(
            f"{url}/v1/completions", json={**long, "max_tokens": 2, "stream": False}, timeout=60
        )
        assert answer.status_code == 200, answer.text
    engine.close()


def test_a_client_that_reads_nothing_is_let_go_and_little_is_kept_for_it() -> None:
    backend = ToldBackend(pieces=["x" * 1000], is_endless=True)
    with (
        listening(build_app(backend, HttpSection(insecure=True, stall_time_s=0.5))) as url,
        connect(url, {**TEXT, "stream": True}, receive_bytes=4096),
    ):
        wait_until(lambda: backend.num_told > 0, "the answer has begun")
        wait_until(lambda: len(backend.closed) == 1, "it is closed without a word from the client")
    # 8 MiB: what two sockets' buffers take at most on Linux, and uvicorn's 64 KiB.
    assert backend.num_told * 1000 < 8 * 1024 * 1024


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_ends(stream: bool) -> None:
    backend = ToldBackend(waits_after=1)
    with listening(build_app(backend, HttpSection(insecure=True, answer_time_s=0.5))) as url:
        response = requests.post(f"{url}/v1/completions", json={**TEXT, "stream": stream}, timeout=30)
    assert response.status_code == (200 if stream else 504)
    assert (
        json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"]
        == "timeout"
    )
    assert len(backend.closed) == 1


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    backend = ToldBackend()
    with listening(build_app(backend, HttpSection(insecure=True, body_time_s=0.3))) as url:
        place = urlparse(url)
        with socket.create_connection((place.hostname, place.port or 0), 30) as client:
            client.sendall(f"{_HEAD}content-length: 100\r\n\r\n{{".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 408")
        with socket.create_connection((place.hostname, place.port or 0), 30) as client:
            client.sendall(f"{_HEAD}content-length: 100\r\n\r\n{{".encode())
        time.sleep(0.1)
        assert requests.get(f"{url}/health", timeout=30).status_code == 200
    assert backend.asks == []

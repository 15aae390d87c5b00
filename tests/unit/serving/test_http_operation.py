"""What operators see: probes, metrics, the access log, CORS; and what starting the HTTP side does not need."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import requests
from answering_backends import ToldBackend, listening, wait_until
from prometheus_client.parser import text_string_to_metric_families

from raytrain.serving.backend import Readiness
from raytrain.serving.http.access_log import ACCESS_LOG
from raytrain.serving.http.app import build_app
from raytrain.serving.http.metrics import Metrics
from raytrain.serving.http.section import HttpSection, RequestLogSection

pytestmark = pytest.mark.whole

TEXT: dict[str, Any] = {"model": "helper", "prompt": "a very private prompt"}


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """Of the access log, from now on."""
    found: list[dict[str, Any]] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(record.getMessage()))

    handler, logger = Keeping(), logging.getLogger(ACCESS_LOG)
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def test_a_line_says_who_asked_what_and_no_word_of_it(lines: list[dict[str, Any]]) -> None:
    with listening(build_app(ToldBackend(), HttpSection(insecure=True))) as url:

        def ask(name: str, **body: Any) -> None:
            headers = {"x-request-id": name}
            requests.post(f"{url}/v1/completions", json={**TEXT, **body}, headers=headers, timeout=30)

        ask("whole")
        ask("streamed", stream=True)
        ask("unknown", model="a private name")
        requests.get(f"{url}/private/path?private=query", headers={"x-request-id": "nowhere"}, timeout=30)
    # A client may have its answer before the line is written.
    by_id = {one["id"]: one for one in lines}
    whole, streamed, unknown, nowhere = (by_id[one] for one in ("whole", "streamed", "unknown", "nowhere"))
    for line in (whole, streamed):
        assert (line["route"], line["status"], line["error"]) == ("/v1/completions", 200, None)
        assert (line["model"], line["served"], line["digest"]) == ("helper", "helper@1.2.0", "1" * 64)
        assert (line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"]) == (5, 2, 2)
        assert line["finish"] == ["stop"]
    assert 0 <= streamed["first_piece_s"] <= streamed["duration_s"]
    assert whole["first_piece_s"] == 0.002, "as the engine tells it: all of it came at once"
    assert (unknown["status"], unknown["error"], unknown["model"]) == (404, "model_not_found", None)
    assert (nowhere["status"], nowhere["route"]) == (404, "unmatched")
    assert "private" not in json.dumps(lines)
    assert "Hello" not in json.dumps(lines)


def test_metrics_count_what_was_answered() -> None:
    backend = ToldBackend()
    with listening(build_app(backend, HttpSection(insecure=True))) as url:
        for n in (1, 2):
            requests.post(f"{url}/v1/completions", json={**TEXT, "n": n}, timeout=30)
        requests.post(f"{url}/v1/completions", data="x", timeout=30)
        page = requests.get(f"{url}/metrics", timeout=30).text
    told = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert told["raytrain_http_requests_total", "/v1/completions", "200"] == 2
    assert told["raytrain_http_requests_total", "/v1/completions", "415"] == 1
    assert told["raytrain_http_errors_total", "unsupported_media_type"] == 1
    assert told["raytrain_tokens_total", "completion"] == 6
    assert told["raytrain_tokens_total", "cached"] == 6
    assert told["raytrain_time_to_first_token_seconds_count",] == 2
    assert told["raytrain_http_requests_running",] == 1, "the one that reads this"
    assert told["raytrain_engine", "local", "waiting"] == 3
    assert told["raytrain_ready",] == 1
    assert "1" * 12 not in page, "no digest makes a series of its own"


def test_numbers_that_nobody_tells_any_more_are_not_told() -> None:
    metrics = Metrics(1, {}, {})
    numbers = {"one": {"waiting": 6, "steps": 19_000}}
    told = metrics.page(Readiness(True, "b", {}, numbers=numbers))
    assert b'raytrain_engine{number="waiting",replica="one"} 6.0' in told
    silent = metrics.page(None)
    assert b"raytrain_replicas 0.0" in silent and b"waiting" not in silent


def test_rows_that_the_log_lost_are_in_the_metrics(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    kept = RequestLogSection(share=1.0, folder=str(folder), flush_s=0.1)
    with listening(build_app(ToldBackend(), HttpSection(insecure=True, request_log=kept))) as url:

        def lost(kind: str) -> str:
            page = requests.get(f"{url}/metrics", timeout=30).text
            (line,) = [one for one in page.splitlines() if f'rows_left_out{{kind="{kind}"}}' in one]
            return line.split()[1]

        assert lost("requests") == "0.0"
        folder.rmdir()
        folder.write_text("no folder any more")
        requests.post(f"{url}/v1/completions", json=TEXT, timeout=30)
        wait_until(lambda: lost("requests") == "1.0", "the row is counted")
        assert lost("feedback") == "0.0"


def test_behind_ray_s_proxies_the_id_is_told_by_them_alone() -> None:
    told = {"x-request-id": "mine-1"}
    with listening(build_app(ToldBackend(), HttpSection(insecure=True), is_behind_ray=True)) as url:
        response = requests.post(f"{url}/v1/completions", json=TEXT, headers=told, timeout=30)
    assert "x-request-id" not in response.headers and response.json()["id"] == "cmpl-mine-1"


def test_each_replica_s_numbers_are_its_own() -> None:
    """Summed they would fall where a replica ends, and a `rate` over them say what nobody did."""
    text = {"running": 2, "adapters": {"a" * 64: 10, "b" * 64: 20}, "name": "text"}
    page = Metrics().page(Readiness(True, "b", {}, numbers={"one": text, "two": {"running": 3}}))
    told = [
        line
        for line in page.decode().splitlines()
        if line.startswith(("raytrain_engine{", "raytrain_replicas "))
    ]
    assert told == [
        "raytrain_replicas 2.0",
        'raytrain_engine{number="running",replica="one"} 2.0',
        'raytrain_engine{number="adapters",replica="one"} 2.0',
        'raytrain_engine{number="running",replica="two"} 3.0',
    ]


def test_ready_is_what_the_backend_says_and_health_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ToldBackend(
        readiness_told=Readiness(False, "tiny", {}, ("helper is in production and not loaded",))
    )
    with listening(build_app(backend, HttpSection(insecure=True))) as url:
        response = requests.get(f"{url}/ready", timeout=30)
        assert response.status_code == 503
        assert response.json()["problems"] == ["helper is in production and not loaded"]

        async def failing() -> Readiness:
            raise RuntimeError("no replica")

        monkeypatch.setattr(backend, "readiness", failing)
        assert requests.get(f"{url}/ready", timeout=30).status_code == 503
        assert "raytrain_ready 0.0" in requests.get(f"{url}/metrics", timeout=30).text
        assert requests.get(f"{url}/health", timeout=30).status_code == 200


def test_a_version_is_that_of_the_package_and_no_other_s() -> None:
    with listening(build_app(ToldBackend(), HttpSection(insecure=True))) as url:
        told = requests.get(f"{url}/version", timeout=30).json()
    assert told == {"raytrain": version("raytrain")}, "nothing else is told to whoever asks"


def test_headers_tell_nothing_but_these() -> None:
    backend = ToldBackend()
    always = {"date", "content-length", "content-type", "x-content-type-options", "x-request-id"}
    answered = {"x-raytrain-model", "x-raytrain-digest"}
    streamed = (always - {"content-length"}) | answered | {
        "transfer-encoding", "cache-control", "x-accel-buffering",
    }  # fmt: skip
    with listening(build_app(backend, HttpSection(insecure=True))) as url:

        def ask(**body: Any) -> set[str]:
            answer = requests.post(f"{url}/v1/completions", json={**TEXT, **body}, timeout=30)
            return {one.lower() for one in answer.headers}

        assert ask() == always | answered
        assert ask(stream=True) == streamed
        assert ask(model="nobody") == ask(prompt=None) == always
        for path in ("health", "ready", "metrics", "version", "v1/models", "nowhere"):
            told = requests.get(f"{url}/{path}", timeout=30)
            assert {one.lower() for one in told.headers} == always, path
        backend.fault = RuntimeError("secret at /root/models")
        assert ask() == always


def test_web_pages_may_ask_only_from_origins_that_are_named() -> None:
    ask = {"origin": "https://app.example", "access-control-request-method": "POST"}
    with listening(build_app(ToldBackend(), HttpSection(insecure=True))) as url:
        refused = requests.options(f"{url}/v1/completions", headers=ask, timeout=30)
        assert refused.status_code == 405
        told = requests.get(f"{url}/health", headers=ask, timeout=30)
        assert not [one for one in [*refused.headers, *told.headers] if one.startswith("access-control")]
    section = HttpSection(insecure=True, cors_origins=("https://app.example",))
    with listening(build_app(ToldBackend(), section)) as url:
        allowed = requests.options(f"{url}/v1/completions", headers=ask, timeout=30)
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        wants = "authorization,content-type,x-stainless-lang,x-stainless-retry-count"
        clients = requests.options(
            f"{url}/v1/completions", headers={**ask, "access-control-request-headers": wants}, timeout=30
        )
        assert (
            clients.status_code == 200
            and "x-stainless-lang" in clients.headers["access-control-allow-headers"]
        )
        other = requests.options(
            f"{url}/v1/completions", headers={**ask, "origin": "https://other.example"}, timeout=30
        )
        assert "access-control-allow-origin" not in other.headers


def test_http_needs_neither_torch_nor_ray() -> None:
    code = "import sys, raytrain.serving.http.app; print({'torch', 'ray', 'transformers'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "set()"

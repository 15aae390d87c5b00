"""A cluster's Jobs API that is not there, is something else, or says no: told within seconds."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import raytrain
from raytrain.cluster.installed import SENT_BY
from raytrain.cluster.token import WrongTokenError
from raytrain.errors import ClusterError, ConfigError
from raytrain.runs.job_client import WITHIN_S, connect_jobs, jobs_url, submit_command


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("head", "http://head:8265"),
        ("head:9000", "http://head:9000"),
        ("https://jobs.example/team", "https://jobs.example:443/team"),
        ("[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert jobs_url(address) == url


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "head:port", "ftp://head"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a Jobs API"):
        jobs_url(address)


def test_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="no cluster is named"):
        jobs_url(None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert jobs_url(None) == "http://head:8265"


def test_where_nobody_listens_it_is_told_within_ten_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    assert WITHIN_S < 10.0
    started = time.monotonic()
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at http://127.0.0.1:{port}") as caught:
        connect_jobs(f"127.0.0.1:{port}", within_s=1.0)
    assert 0.9 < time.monotonic() - started < 2.5
    assert f"asked http://127.0.0.1:{port}/api/version" in caught.value.why
    assert "connection refused" in caught.value.why


def test_one_that_takes_the_call_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ClusterError, match="no Ray cluster answers") as caught:
            connect_jobs(f"127.0.0.1:{silent.getsockname()[1]}", within_s=1.0)
        assert time.monotonic() - started < 4.0
    assert "no answer" in caught.value.why


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(ClusterError) as caught:
        connect_jobs("http://no-such-host.invalid:8265", within_s=2.0)
    assert "the name is not known" in caught.value.why


@contextmanager
def serving(status: int, body: Any) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.slow  # ray is imported
@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (404, {}, "is no Jobs API of a Ray cluster"),
        (200, {"hello": "world"}, "is no Jobs API of a Ray cluster"),
        (500, {}, "is no Jobs API of a Ray cluster"),
        (401, "no token", "wants a token, and none was sent"),
        (403, "bad token", "refuses the token"),
        (
            200,
            {"version": "4", "ray_version": "2.41.0", "ray_commit": "x"},
            "has Ray 2.41.0, this machine has",
        ),
    ],
)
def test_what_answers_and_is_not_our_cluster(status: int, body: Any, what: str) -> None:
    import raytrain.runs.bounded_client  # noqa: F401 - seconds, which are Ray's

    started = time.monotonic()
    with serving(status, body) as url, pytest.raises(ClusterError) as caught:
        connect_jobs(url)
    assert time.monotonic() - started < WITHIN_S, "it is not tried again"
    assert what in caught.value.what
    assert caught.value.exit_code == 4


@pytest.mark.slow
def test_the_address_that_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with serving(200, {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"}) as url:
        assert connect_jobs(url).get_address() == url


@contextmanager
def a_cluster(answers: Mapping[str, Callable[[BaseHTTPRequestHandler], None]]) -> Iterator[str]:
    """Says its version as ours does; what else it answers stands behind the beginning of the path."""
    import ray

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/api/version":
                say(self, 200, {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"})
            else:
                next(answer for path, answer in answers.items() if self.path.startswith(path))(self)

        do_POST = do_PUT = do_GET

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def say(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    handler.send_response(status)
    handler.end_headers()
    handler.wfile.write(json.dumps(body).encode())


@pytest.mark.slow
def test_a_token_that_is_refused_later() -> None:
    with a_cluster({"/api/jobs": lambda handler: say(handler, 403, "bad token")}) as url:
        client = connect_jobs(url)
        with pytest.raises(WrongTokenError, match="refuses the token"):
            client.get_job_info("job-1")
        with pytest.raises(WrongTokenError, match="refuses the token"):
            submit_command(client, ["runs"], submission_id="a", package=None, environment={}, metadata={})


@pytest.mark.slow
def test_no_request_waits_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from raytrain.runs import bounded_client

    monkeypatch.setattr(bounded_client, "_ANSWER_S", 0.5)
    over = threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> None:
        over.wait(20.0)

    with a_cluster({"/api/jobs": silent}) as url:
        client = connect_jobs(url)
        started = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            client.get_job_info("job-1")
        assert time.monotonic() - started < 10.0
        over.set()


@pytest.mark.slow
def test_a_large_package_on_a_slow_line(tmp_path: Path) -> None:
    """All of it arrives, although that takes longer than a connection may."""
    from raytrain.runs import bounded_client

    received: dict[str, bytes] = {}
    package = tmp_path / "package.zip"
    package.write_bytes(os.urandom(24 * 2**20))

    def packages(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            say(handler, 404, "")
            return
        length, found = int(handler.headers["Content-Length"]), bytearray()
        while len(found) < length:
            time.sleep(0.4)
            found += handler.rfile.read(min(length - len(found), 2**21))
        received["body"] = bytes(found)
        say(handler, 200, {})

    def jobs(handler: BaseHTTPRequestHandler) -> None:
        received["job"] = handler.rfile.read(int(handler.headers["Content-Length"]))
        say(handler, 200, {"job_id": "a", "submission_id": "a"})

    with (
        a_cluster({"/api/packages": packages, "/api/jobs": jobs}) as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(bounded_client, "_ANSWER_S", 3.0)
        client = connect_jobs(url)
        submit_command(client, ["runs"], submission_id="a", package=str(package), environment={}, metadata={})
    assert received["body"] == package.read_bytes()
    runtime_env = json.loads(received["job"])["runtime_env"]
    assert runtime_env["working_dir"].startswith("gcs://")
    assert runtime_env["env_vars"][SENT_BY] == raytrain.__version__, (
        "the job's raytrain compares it with its own"
    )

"""An S3 endpoint for tests: moto's server in a process of its own, and a proxy before it that fails as it is told.

The proxy lets one request pass at a time: S3 decides conditional writes atomically, moto looks and then writes.
GoogleProxy speaks what Google Cloud Storage's XML interface says otherwise than S3.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Failure = Literal["refused", "lost answer", "reset", "silence"]
"""refused: 500, and nothing is done. lost answer: it is done, and the connection ends. reset: it ends before. silence:
no answer, for a while."""

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Proxy:
    """Counts requests; from number `fail_at` on, `times` of them meet `failure`."""

    moto_port: int
    port: int = 0
    count: int = 0
    fail_at: int | None = None
    times: int = 1
    failure: Failure = "refused"
    silence_s: float = 3.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def uri(self, folder: str, timeout_s: float = 20) -> str:
        return (
            f"s3://{BUCKET}/{folder}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
            f"&timeout_s={timeout_s}"
        )

    def plan(self, fail_at: int | None, failure: Failure = "refused", times: int = 1) -> None:
        with self.lock:
            self.count, self.fail_at, self.failure, self.times = 0, fail_at, failure, times

    def next_failure(self) -> Failure | None:
        self.count += 1
        if self.fail_at is not None and self.fail_at <= self.count < self.fail_at + self.times:
            return self.failure
        return None

    def forward(
        self, handler: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.moto_port, timeout=30)
        headers = {key: value for key, value in handler.headers.items() if key.lower() != "connection"}
        is_chunked = "Transfer-Encoding" in handler.headers
        connection.request(
            handler.command,
            handler.path,
            [body] if is_chunked else body or None,
            self.translate(headers),
            encode_chunked=is_chunked,
        )
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    def translate(self, headers: dict[str, str]) -> dict[str, str]:
        """What moto is asked with."""
        return headers


GOOGLE_CREDENTIALS = {
    "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(
        {
            "client_email": "test@example.org",
            "private_key": "none",
            "private_key_id": "none",
            "disable_oauth": True,
        }
    )
}


@dataclass
class GoogleProxy(Proxy):
    """Google's XML interface is S3's, and its condition "there is none" a header of its own,
    x-goog-if-generation-match: 0, which S3 calls If-None-Match: *. Who asks shows a bearer token. Any other header of
    Google's fails. (https://docs.cloud.google.com/storage/docs/xml-api/reference-headers)"""

    def uri(self, folder: str, timeout_s: float = 20) -> str:
        endpoint = f"endpoint_override=127.0.0.1:{self.port}&scheme=http&timeout_s={timeout_s}"
        return f"gs://{BUCKET}/{folder}?{endpoint}"

    def translate(self, headers: dict[str, str]) -> dict[str, str]:
        asked = {key.lower(): value for key, value in headers.items()}
        assert asked.pop("authorization", "Bearer").startswith("Bearer"), "Google's tokens are bearer's"
        generation = asked.pop("x-goog-if-generation-match", None)
        assert generation in (None, "0"), "the registry asks for no other generation than none"
        google = [key for key in asked if key.startswith(("x-goog-", "x-amz-"))]
        assert not google, f"no translation of {google}"
        asked["authorization"] = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"
        return asked | ({} if generation is None else {"if-none-match": "*"})


def handler_of(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms

        def handle_any(self) -> None:
            body = self.read_body()
            with proxy.lock:
                failure = proxy.next_failure()
                if failure == "reset":
                    return self.hang_up()
                if failure == "refused":
                    return self.answer(500, [("Content-Type", "text/plain")], b"injected")
                if failure != "silence":
                    status, headers, content = proxy.forward(self, body)
            if failure == "silence":
                time.sleep(proxy.silence_s)
                return self.hang_up()
            if failure == "lost answer":
                return self.hang_up()
            return self.answer(status, headers, content)

        def read_body(self) -> bytes:
            if "Transfer-Encoding" not in self.headers:
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for key, value in headers:
                if key.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(key, value)
            length = next((value for key, value in headers if key.lower() == "content-length"), None)
            self.send_header("Content-Length", str(len(content)) if self.command != "HEAD" else length or "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def hang_up(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_any

    return Handler


@contextmanager
def object_server(kind: type[Proxy] = Proxy) -> Iterator[Proxy]:
    """Both, with an empty bucket."""
    port = free_port()
    command = f"from moto.server import main; main(['-p', '{port}'])"
    moto = subprocess.Popen(
        [sys.executable, "-c", command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **CREDENTIALS},
    )
    try:
        _wait_for(port, moto)
        made = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(made, timeout=30).close()
        proxy = kind(port)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(proxy))
        server.daemon_threads = True
        proxy.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()
            server.server_close()
    finally:
        moto.terminate()
        moto.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "moto's server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("moto's server does not answer")

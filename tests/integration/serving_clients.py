"""Clients that ask too much, too slowly, or not at all, and a disk that is full: each is done to a site that others ask
meanwhile, and tells what it measured. Raises AssertionError where the server does not do what it must."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from serving_site import CONTEXT_TOKENS, MAX_ROWS, MAX_WAITING, Site

from benchmarks.serving_load import Connection, wait_until

Measured = dict[str, float]


def fill_queue(site: Site) -> Measured:
    """More at once than both replicas have places for."""
    num = 4 * (MAX_ROWS + MAX_WAITING)
    body = {"model": "words", "prompt": "of", "max_tokens": 150, "temperature": 1}
    found: list[tuple[int, str]] = []

    def ask() -> None:
        status, headers, _ = Connection(site.port).send("POST", "/v1/completions", body)
        found.append((status, headers.get("retry-after", "")))

    threads = [threading.Thread(target=ask) for _ in range(num)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == num and {status for status, _ in found} <= {200, 429}, str(found)
    refused = [after for status, after in found if status == 429]
    assert refused and all(int(after) >= 1 for after in refused), "429 tells when to come again"
    return {"refused": len(refused)}


def read_slowly(site: Site, num: int = 4, num_bytes: int = 2_000) -> Measured:
    """Streams that are read a byte at a time."""
    processes = [*site.processes("ServeReplica:raytrain:ingress"), *site.proxies()]
    before = sum(one.memory_info().rss for one in processes)
    streams = [_stream(site, 1000) for _ in range(num)]
    for _ in range(num_bytes):
        for one in streams:
            assert one.recv(1), "it is read on"
        time.sleep(0.001)
    grown = sum(one.memory_info().rss for one in processes) - before
    for one in streams:
        one.close()
    return {"grown_mib": grown / 2**20}


def leave_streams(site: Site, num: int = 6) -> Measured:
    """Of answers that would take long; of every second one nothing would be told before its end."""
    streams = [_stream(site, CONTEXT_TOKENS - 100, is_streamed=number % 2 == 0) for number in range(num)]
    for one in streams[::2]:
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
    wait_until(lambda: site.engine("running") == num, 20, lambda: f"{num} answers: {site.numbers()}")
    start = time.monotonic()
    for one in streams:
        one.close()
    wait_until(lambda: not site.engine("running"), 20, lambda: f"no answers: {site.engine('running')}")
    return {"freed_s": time.monotonic() - start}


class Stream:
    """An answer that does not end before it is long enough, read event by event."""

    def __init__(self, site: Site, num_tokens: int, **more: Any) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=120)
        body = json.dumps(_endless(num_tokens) | more)
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        self._answer = connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self.text, self.error, self.is_done = "", None, False

    def read(self, num_events: int | None = None) -> Self:
        """So many more, or all that come."""
        while num_events != 0 and (line := self._answer.readline()):
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]\n":
                self.is_done = True
                continue
            told = json.loads(line.removeprefix(b"data: "))
            self.error = told.get("error")
            self.text += "".join(one["text"] for one in told.get("choices", ()))
            num_events = None if num_events is None else num_events - 1
        return self


def _endless(num_tokens: int, *, is_streamed: bool = True) -> dict[str, Any]:
    """What is asked for JSON of a text that may not end."""
    schema = {"type": "string", "minLength": 10 * CONTEXT_TOKENS}
    told = {"type": "json_schema", "json_schema": {"name": "long", "schema": schema}}
    return {
        "model": "words",
        "prompt": "of",
        "max_tokens": num_tokens,
        "stream": is_streamed,
        "response_format": told,
    }


def _stream(site: Site, num_tokens: int, *, is_streamed: bool = True) -> socket.socket:
    body = json.dumps(_endless(num_tokens, is_streamed=is_streamed))
    one = socket.create_connection(("127.0.0.1", site.port), timeout=60)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    one.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    return one


def send_too_much(site: Site) -> Measured:
    """Prompts that are over the limit, and say so."""
    connection = site.connection
    for body, status, limit in (
        ({"prompt": [5] * (CONTEXT_TOKENS + 1)}, 400, str(CONTEXT_TOKENS)),
        ({"prompt": "long " * CONTEXT_TOKENS * 10}, 400, str(CONTEXT_TOKENS)),
        ({"prompt": "of", "max_tokens": CONTEXT_TOKENS}, 400, str(CONTEXT_TOKENS)),
        ({"prompt": "x" * 3_000_000}, 413, "2097152"),
    ):
        told, _, content = connection.send("POST", "/v1/completions", {"model": "sums", **body})
        assert told == status and limit in content.decode(), f"{told}: {content[:300]!r}"
    connection.close()
    return {}


def send_garbage(site: Site) -> Measured:
    """What is no HTTP, and what is half of it."""
    parts = [
        os.urandom(4096),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    ]
    for part in parts * 3:
        with socket.create_connection(("127.0.0.1", site.port), timeout=5) as one, suppress(OSError):
            one.sendall(part)
            one.settimeout(0.2)
            told = one.recv(64)
            assert not told.startswith(b"HTTP/1.1 5"), str(told)
    return {}


# Disks


class CannotMountError(Exception):
    """A disk of its own takes rights that this user has not."""


def fill_disk(site: Site) -> Measured:
    """Of the request log."""
    connection = site.connection
    lost = 'raytrain_request_log_rows_left_out{kind="feedback"}'
    before = site.numbers()[lost]
    with _full_disk(site.disk):
        for number in range(5):
            body = {"request_id": f"req-{number}", "rating": "up"}
            assert connection.send("POST", "/v1/feedback", body)[0] == 200
        wait_until(
            lambda: site.numbers()[lost] > before,  # each ingress counts its own
            30,
            lambda: f"rows that are left out, more than {before}",
        )
    files = set(site.disk.iterdir())
    connection.send("POST", "/v1/feedback", {"request_id": "req-after", "rating": "up"})
    connection.close()
    wait_until(lambda: any("feedback" in one.name for one in set(site.disk.iterdir()) - files), 30,
               lambda: "a row that is written again")  # fmt: skip
    return {}


@contextmanager
def _full_disk(place: Path) -> Iterator[None]:
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise CannotMountError(mounted.stderr.strip())
    try:
        with suppress(OSError), (place / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)

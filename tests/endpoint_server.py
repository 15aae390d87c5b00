"""A small HTTP server that speaks as much of OpenAI's API as an evaluation asks for, and can be told to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Instead = tuple[int, str] | tuple[int, str, dict[str, str]]
"""Status, text and headers; with a Content-Length beyond the text it is cut short."""
Misbehave = Callable[[int, dict[str, Any]], Instead | None]
"""(number of the request, its body) → what is sent instead of an answer."""


class Served:
    """What was asked, and where."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []


@contextmanager
def serve(
    answer: Callable[[str], str], misbehave: Misbehave | None = None, slow_s: float = 0.0
) -> Iterator[Served]:
    """Serve `answer` of the last message, or of the prompt, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, json.dumps({"data": [{"id": "only-model"}]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.bodies.append(body)
            served.headers.append(dict(self.headers))
            refused = misbehave(len(served.bodies), body) if misbehave is not None else None
            if refused is not None:
                self._send(*refused)
                return
            time.sleep(slow_s)
            is_chat = "messages" in body
            text = answer(body["messages"][-1]["content"] if is_chat else body["prompt"])
            part = {"message": {"content": text}} if is_chat else {"text": text}
            told = {
                "choices": [{**part, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3},
            }
            self._send(200, json.dumps(told))

        def _send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
            content = text.encode()
            headers = {"Content-Length": str(len(content)), **(headers or {})}
            self.close_connection = headers["Content-Length"] != str(len(content))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that did not wait is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

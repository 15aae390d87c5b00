"""The client that the faults of serving are held by: what it calls wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.serving_load import Connection, Load, Question

OLD, NEW = "sha256:1", "sha256:2"
REFERENCES = {(OLD, "Hi"): "old words", (NEW, "Hi"): "new words"}
ERROR = {"error": {"message": "the replica that answered has ended", "code": "replica_lost"}}


class Canned(Connection):
    """Answers that a test has written."""

    def __init__(self, content: bytes) -> None:
        super().__init__(0)
        self._content = content

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        return 200, {"x-raytrain-digest": OLD}, self._content


def part(text: str, digest: str = OLD) -> dict[str, Any]:
    return {"choices": [{"text": text}], "raytrain": {"digest": digest}}


def stream(*events: dict[str, Any], ending: str = "data: [DONE]\n\n") -> bytes:
    return ("".join(f"data: {json.dumps(one)}\n\n" for one in events) + ending).encode()


def asked_of(content: bytes, *, is_streamed: bool) -> Load:
    load = Load(0, [])
    load.answers.append(Canned(content).ask(Question("sums", "Hi", 8, is_streamed)))
    return load


def is_right(load: Load) -> bool:
    return load.wrong(REFERENCES) == []


def is_wrong(load: Load) -> bool:
    return load.wrong(REFERENCES) == load.answers


@pytest.mark.parametrize(
    ("content", "is_streamed", "held"),
    [
        (json.dumps(part("old words")).encode(), False, is_right),
        (json.dumps(part("new words")).encode(), False, is_wrong),
        (json.dumps(part("old words", NEW)).encode(), False, is_wrong),
        (stream(part("old "), part("words")), True, is_right),
        (stream(part("old "), part("words", NEW)), True, is_wrong),
        (stream(part("old "), part("other")), True, is_wrong),
        (stream(part("old "), part("words"), ending=""), True, is_wrong),
        (stream(part("old "), ERROR, ending=""), True, is_right),
        (stream(part("other"), ERROR, ending=""), True, is_wrong),
        (b"", True, is_wrong),
    ],
)
def test_what_is_another_s_half_or_mixed_is_wrong(
    content: bytes, is_streamed: bool, held: Callable[[Load], bool]
) -> None:
    load = asked_of(content, is_streamed=is_streamed)
    assert held(load), load.answers


def test_a_stream_that_tells_an_error_is_the_server_s_fault() -> None:
    (one,) = asked_of(stream(part("old "), ERROR, ending=""), is_streamed=True).answers
    assert one.is_server_s_fault and "replica_lost" in str(one.error)

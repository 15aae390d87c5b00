"""Clients that ask a server as soon as they are answered, and whether every answer is what the version that it names
gives by itself."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

References = Mapping[tuple[str, str], str]
"""What each digest answers to each prompt, by somebody else's code."""

_PATIENCE_S = 60.0
_RETRY_AFTER_S = 1.0
_CONNECT_AGAIN_AFTER_S = 5.0
"""Where nobody listens: an immediate second try would meet nobody either."""


@dataclass(frozen=True)
class Question:
    """A greedy one."""

    model: str
    prompt: str
    num_tokens: int
    is_streamed: bool = False

    @property
    def body(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": self.prompt,
            "max_tokens": self.num_tokens,
            "temperature": 0,
            **({"stream": True} if self.is_streamed else {}),
        }


@dataclass(frozen=True)
class Asked:
    """A question, and what came of it."""

    question: Question
    began: float
    """Seconds since 1970."""
    seconds: float
    """Until the answer, or until it was given up; a retry included."""
    status: int = 0
    """0 where the connection broke, 500 where a stream ended with an error."""
    digest: str = ""
    """The header's; the same stands in the body, and in each part of a stream. Where they differ, all of them."""
    text: str = ""
    is_broken_off: bool = False
    """A stream that ended with neither [DONE] nor an error: who reads it takes half an answer for a whole one."""
    error: str | None = None
    """What became of it in the end."""
    first_error: str | None = None
    """What became of it at first, where it was asked again."""

    @property
    def is_server_s_fault(self) -> bool:
        return self.error is not None and (self.status == 0 or self.status >= 500)


class Connection:
    """One client's, kept alive as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: http.client.HTTPConnection | None = None

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content. Raises OSError or HTTPException where the connection breaks."""
        if self._open is None:
            self._open = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_S)
        content = None if body is None else json.dumps(body)
        try:
            self._open.request(method, path, content, {"content-type": "application/json"})
            answer = self._open.getresponse()
            return answer.status, {key.lower(): one for key, one in answer.getheaders()}, answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def ask(self, question: Question) -> Asked:
        """Once."""
        began, start = time.time(), time.monotonic()
        try:
            status, headers, content = self.send("POST", "/v1/completions", question.body)
        except (OSError, http.client.HTTPException) as error:
            return Asked(question, began, time.monotonic() - start, error=f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - start
        if status != 200:
            told = content.decode("utf-8", "replace")[:300]
            return Asked(question, began, seconds, status, error=f"{status}: {told}")
        events = _events(content) if question.is_streamed else [json.loads(content)]
        parts = [one for one in events if one is not _DONE and "error" not in one]
        digests = {headers["x-raytrain-digest"], *(one["raytrain"]["digest"] for one in parts)}
        digest, text = " and ".join(sorted(digests)), "".join(map(_text_of, parts))
        errors = [str(one["error"])[:300] for one in events if one is not _DONE and "error" in one]
        if errors:
            return Asked(question, began, seconds, 500, digest, text, error=errors[0])
        is_broken_off = question.is_streamed and events[-1:] != [_DONE]
        return Asked(question, began, seconds, status, digest, text, is_broken_off)


_DONE: dict[str, Any] = {}


def _events(content: bytes) -> list[dict[str, Any]]:
    """Of a stream: what each of its lines tells, and `_DONE`."""
    told = [
        line.removeprefix("data: ") for line in content.decode().splitlines() if line.startswith("data: ")
    ]
    return [_DONE if one == "[DONE]" else json.loads(one) for one in told]


def _text_of(part: dict[str, Any]) -> str:
    return "".join(one["text"] for one in part["choices"])


@dataclass
class Load:
    """A closed loop; as a context manager it runs as long as the block does."""

    port: int
    questions: Sequence[Question]
    num_connections: int = 16
    asks_again: bool = False
    """A client who met a 5xx tries once more after a second, one whose connection broke after five."""
    answers: list[Asked] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(self.num_connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * _PATIENCE_S)

    def wait_for(self, num: int, within_s: float = 120.0) -> None:
        """Until so many more are answered."""
        wanted = self.num_answered + num
        wait_until(
            lambda: self.num_answered >= wanted, within_s, lambda: f"{num} answers: {self.errors[-3:]}"
        )

    @property
    def num_answered(self) -> int:
        return sum(one.error is None for one in self.answers)

    @property
    def errors(self) -> list[str]:
        """Of those that were given up."""
        return [one.error for one in self.answers if one.error is not None]

    @property
    def first_errors(self) -> list[str]:
        """Of those that were asked again, or given up."""
        return [str(one.first_error or one.error) for one in self.answers if one.first_error or one.error]

    @property
    def longest_gap_s(self) -> float:
        """In which nobody was answered."""
        ends = sorted(one.began + one.seconds for one in self.answers if one.error is None)
        return max((late - early for early, late in itertools.pairwise(ends)), default=0.0)

    def wrong(self, references: References) -> list[Asked]:
        """Answers that are not what the digest that they name gives, that name two, or that are half of one."""
        return [one for one in self.answers if _is_wrong(one, references)]

    def seconds(self, share: float) -> float:
        """Of those that were answered."""
        return float(np.quantile([one.seconds for one in self.answers if one.error is None], share))

    def _run(self, number: int) -> None:
        connection = Connection(self.port)
        for turn in itertools.count(number):
            if self._stopping.is_set():
                break
            question = self.questions[turn % len(self.questions)]
            asked = connection.ask(question)
            if self.asks_again and asked.is_server_s_fault:
                asked = _asked_again(connection, asked)
            self.answers.append(asked)
        connection.close()


def _is_wrong(one: Asked, references: References) -> bool:
    if " and " in one.digest or one.is_broken_off:
        return True
    whole = references.get((one.digest, one.question.prompt))
    if one.error is None:
        return whole != one.text
    return whole is not None and not whole.startswith(one.text)  # what a stream had told before it failed


def _asked_again(connection: Connection, first: Asked) -> Asked:
    pause_s = _RETRY_AFTER_S if first.status else _CONNECT_AGAIN_AFTER_S
    time.sleep(pause_s)
    again = connection.ask(first.question)
    return Asked(
        **{
            **vars(again),
            "began": first.began,
            "seconds": first.seconds + pause_s + again.seconds,
            "first_error": first.error,
        }
    )


def wait_until(condition: Callable[[], bool], within_s: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within_s:.0f} s for {what()}")
        time.sleep(0.05)

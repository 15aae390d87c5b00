"""Servers of their own processes that take turns, and clients that ask each of them the same."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks.serving_load import Question

_START_S = 300.0
_ANSWER_S = 600.0


@dataclass(frozen=True)
class Told:
    """An answer."""

    text: str
    num_tokens: int
    seconds: float


class Server:
    """A process and those that it starts. Between its turns it is stopped, so that it takes nothing from others."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, log: Path, *, ready: Sequence[str], threads: int
    ) -> None:
        """ready: paths that become 200 one after another, the last once the model can answer."""
        self.name, self.port, self._log = name, port, log
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self.began = time.perf_counter()
        with log.open("wb") as words:
            self._process = subprocess.Popen(
                command, stdout=words, stderr=words, env=environment, start_new_session=True
            )
        self.started_s: list[float] = []
        """After which each of `ready` was 200."""
        for path in ready:
            self._wait(path)
            self.started_s.append(time.perf_counter() - self.began)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self, path: str) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SystemExit(f"{self.name} ended: {self._log.read_text(errors='replace')[-2000:]}")
            try:
                status, _ = send(self.port, "GET", path)
            except (OSError, http.client.HTTPException):
                status = 0
            if status == 200:
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} is not ready: {self._log.read_text(errors='replace')[-2000:]}")

    def pause(self) -> None:
        """Let others have the machine."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        try:
            root = psutil.Process(self._process.pid)
            for one in [*root.children(recursive=True), root]:
                one.send_signal(number)
        except psutil.NoSuchProcess:
            return


def send(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Over a connection of its own. Raises OSError or HTTPException where it breaks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ask(port: int, question: Question) -> Told:
    """Raises SystemExit where it is not answered: nothing could be compared."""
    start = time.perf_counter()
    status, content = send(port, "POST", "/v1/completions", question.body)
    seconds = time.perf_counter() - start
    if status != 200:
        raise SystemExit(f"port {port} refuses with {status}: {content[:500]!r}")
    found = json.loads(content)
    return Told(found["choices"][0]["text"], found["usage"]["completion_tokens"], seconds)


def tokens_per_second(port: int, questions: Sequence[Question], num_clients: int) -> tuple[float, list[Told]]:
    """Tokens a second while clients take the questions from one pile; answers in the questions' order."""
    told: dict[int, Told] = {}
    pile = iter(range(len(questions)))
    taking = threading.Lock()
    failed: list[BaseException] = []

    def client() -> None:
        try:
            while True:
                with taking:
                    number = next(pile, None)
                if number is None:
                    return
                told[number] = ask(port, questions[number])
        except BaseException as error:  # noqa: BLE001 - told to who started the client
            failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(num_clients)]
    start = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if failed:
        raise failed[0]
    seconds = time.perf_counter() - start
    answers = [told[number] for number in sorted(told)]
    return sum(one.num_tokens for one in answers) / seconds, answers


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

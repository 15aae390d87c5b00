"""What engines have in common: one thread that takes turns as long as there is something to do, commands that it obeys
between two of them, and adapters that leave once nobody uses them."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_FAULTS_IN_A_ROW = 3
"""Turns that may fail one after another before the engine gives up: whoever watches it then starts another."""


class Turns:
    """For any thread; what is said to be under `wanted` is so for whoever calls."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        """run: what the thread does, from `start` on."""
        self.wanted = threading.Condition()
        self.users: Counter[str] = Counter()
        """How much of each adapter waits or is worked on. Under `wanted`."""
        self.is_closed = False
        self._adapters: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._faults = 0
        self._thread = threading.Thread(target=run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether turns are still taken."""
        return self._thread.is_alive() and not self.is_closed

    def close(self) -> None:
        """Returns once the thread has ended."""
        with self.wanted:
            self.is_closed = True
            self.wanted.notify()
        self._thread.join()

    def command(self, act: Callable[[], _T]) -> _T:
        """Have it done between two turns; what it returned, or raises what it raised, when it is. RuntimeError where
        the engine is closed."""
        done: Future[_T] = Future()
        with self.wanted:
            if self.is_closed:
                raise _closed()
            self._commands.append((act, done))
            self.wanted.notify()
        return done.result()

    def put(self, digest: str, num_bytes: int) -> None:
        """An adapter that can answer from now on."""
        with self.wanted:
            self._leaving.discard(digest)
            self._adapters[digest] = num_bytes

    def unload(self, digest: str) -> None:
        """No new user; the adapter goes when the last has ended."""
        with self.wanted:
            if digest in self._adapters:
                self._leaving.add(digest)
                self.wanted.notify()

    def can_answer(self, digest: str) -> bool:
        """Under `wanted`."""
        return digest in self._adapters and digest not in self._leaving

    def held(self) -> dict[str, int]:
        """Bytes of each adapter that can answer. Under `wanted`."""
        return {one: size for one, size in self._adapters.items() if one not in self._leaving}

    # For the thread

    def wait(self, has_work: Callable[[], Any]) -> bool:
        """Until there is something to do; False once the engine is closed. has_work is asked under `wanted`."""
        with self.wanted:
            while not (self.is_closed or self._commands or self._leaving_now() or has_work()):
                self.wanted.wait()
            return not self.is_closed

    def obey(self, drop: Callable[[str], None]) -> None:
        """Let those adapters go that nobody uses, and do what was commanded."""
        with self.wanted:
            commands, self._commands = self._commands, deque()
            leaving = self._leaving_now()
            for digest in leaving:
                self._leaving.discard(digest)
                del self._adapters[digest]
        for digest in leaving:
            drop(digest)
        for act, done in commands:
            try:
                told = act()
            except Exception as error:  # noqa: BLE001 - whoever gave the command is told
                done.set_exception(error)
            else:
                done.set_result(told)

    def succeeded(self) -> None:
        """A turn has."""
        self._faults = 0

    def failed(self, what: str) -> None:
        """A turn has, with the exception that is being handled."""
        _log.exception("%s failed", what)
        self._faults += 1
        if self._faults >= _FAULTS_IN_A_ROW:
            _log.critical("%d turns failed one after another: the engine ends", self._faults)
            self.is_closed = True

    def end(self) -> None:
        """No command is obeyed any more. Under `wanted`."""
        self.is_closed = True
        for _, done in self._commands:
            done.set_exception(_closed())
        self._commands.clear()

    def _leaving_now(self) -> list[str]:
        return [digest for digest in self._leaving if not self.users[digest]]


def _closed() -> RuntimeError:
    return RuntimeError("the engine is closed")

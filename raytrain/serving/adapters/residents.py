"""Which adapters can answer now: read when they are asked for, the least recently used out first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from raytrain.serving.adapters.bank import NoRoomError
from raytrain.serving.engine.request import Engine


def choose_eviction(by_use: Collection[str], pinned: Collection[str], busy: Collection[str]) -> str | None:
    """by_use: the least recently used first. None where every one is pinned or answering."""
    return next((one for one in by_use if one not in pinned and one not in busy), None)


class Residents:
    """Of one engine; for any thread. What is read for one adapter never keeps another from answering."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._by_use: OrderedDict[str, None] = OrderedDict()
        self._pinned: frozenset[str] = frozenset()
        self._users: dict[str, int] = {}
        self._reading: dict[str, threading.Lock] = {}
        self.loads = self.evictions = self.hits = 0

    def pin(self, digests: Collection[str]) -> None:
        """These stay, and no others."""
        with self._lock:
            self._pinned = frozenset(digests)

    def resident(self) -> list[str]:
        """The least recently used first."""
        with self._lock:
            return list(self._by_use)

    def enter(self, digest: str) -> bool:
        """Whether it can answer; it then stays until `leave`."""
        with self._lock:
            if digest not in self._by_use:
                return False
            self.hits += 1
            self._by_use.move_to_end(digest)
            self._users[digest] = self._users.get(digest, 0) + 1
            return True

    def leave(self, digest: str) -> None:
        """Whoever entered has his answer."""
        with self._lock:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]

    def load(self, digest: str, read: Callable[[], Any]) -> None:
        """Let it answer, and wait until it does; of several that want the same one reads it.

        Raises what `read` raises, RefusedError where it does not fit the base model, NoRoomError where all that is
        there is pinned or answering.
        """
        with self._lock:
            turn = self._reading.setdefault(digest, threading.Lock())
        with turn:
            with self._lock:
                if digest in self._by_use:
                    return
            weights = read()
            while True:
                try:
                    self._engine.load(digest, weights)
                    break
                except NoRoomError:
                    if not self._evict():
                        raise
            with self._lock:
                self.loads += 1
                self._by_use[digest] = None

    def _evict(self) -> bool:
        with self._lock:
            chosen = choose_eviction(self._by_use, self._pinned, self._users)
            if chosen is None:
                return False
            del self._by_use[chosen]
            self.evictions += 1
            self._engine.unload(chosen)
            return True

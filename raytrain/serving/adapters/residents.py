"""Which adapters can answer now: read when they are asked for, the least recently used out first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from raytrain.serving.adapters.bank import NoRoomError


def choose_eviction(by_use: Collection[str], pinned: Collection[str], busy: Collection[str]) -> str | None:
    """by_use: the least recently used first. None where every one is pinned or answering."""
    return next((one for one in by_use if one not in pinned and one not in busy), None)


@dataclass(frozen=True)
class Loading:
    """What it took; nothing where it was there."""

    read_s: float = 0.0
    put_s: float = 0.0


class Holder(Protocol):
    """What of an engine is asked here."""

    def load(self, digest: str, weights: Any) -> None: ...

    def unload(self, digest: str) -> None: ...


class Residents:
    """Of one replica; for any thread. What is read for one adapter never keeps another from answering."""

    def __init__(self, engine: Holder) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._by_use: OrderedDict[str, type] = (
            OrderedDict()
        )  # of its weights: one kind has no room for another
        self._pinned: frozenset[str] = frozenset()
        self._kept: frozenset[str] = frozenset()
        self._leaving: set[str] = set()
        self._users: dict[str, int] = {}
        self._reading: dict[str, threading.Lock] = {}
        self.loads = self.evictions = self.hits = 0

    def pin(self, digests: Collection[str]) -> None:
        """These stay, and no others."""
        with self._lock:
            self._pinned = frozenset(digests)

    def keep(self, digests: Collection[str]) -> None:
        """These go only for one that is to be pinned; and no others."""
        with self._lock:
            self._kept = frozenset(digests)
            self._leaving -= self._kept

    def drop(self, digest: str) -> bool:
        """Let go of one that is neither pinned nor kept, as under another name; False where it is answering, and goes
        once it is not."""
        with self._lock:
            if digest not in self._by_use or digest in self._pinned or digest in self._kept:
                return True
            if digest in self._users:
                self._leaving.add(digest)
                return False
            self._let_go(digest)
            return True

    def resident(self) -> list[str]:
        """The least recently used first."""
        with self._lock:
            return list(self._by_use)

    def enter(self, digest: str, *, is_hit: bool = True) -> bool:
        """Whether it can answer; it then stays until `leave`. is_hit: whoever asks has not waited for it to load."""
        with self._lock:
            if digest not in self._by_use:
                return False
            self.hits += is_hit
            self._by_use.move_to_end(digest)
            self._users[digest] = self._users.get(digest, 0) + 1
            return True

    def leave(self, digest: str) -> None:
        """Whoever entered has his answer."""
        with self._lock:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
                if digest in self._leaving and digest not in self._pinned:
                    self._let_go(digest)

    def load(self, digest: str, read: Callable[[], Any], *, is_pinned: bool = False) -> Loading:
        """Let it answer, and wait until it does; of several that want the same one reads it.

        is_pinned: it will be, and what is kept makes room for it.

        Raises what `read` raises, RefusedError where it does not fit the base model, NoRoomError where all that is
        there is pinned or answering.
        """
        with self._lock:
            turn = self._reading.setdefault(digest, threading.Lock())
        with turn:
            with self._lock:
                if digest in self._by_use:
                    return Loading()
            began = time.perf_counter()
            weights = read()
            was_read = time.perf_counter()
            while True:
                try:
                    self._engine.load(digest, weights)
                    break
                except NoRoomError:
                    if not self._evict(type(weights), spared=frozenset() if is_pinned else self._kept):
                        raise
            with self._lock:
                self.loads += 1
                self._by_use[digest] = type(weights)
            return Loading(was_read - began, time.perf_counter() - was_read)

    def _evict(self, kind: type, spared: Collection[str]) -> bool:
        with self._lock:
            alike = [digest for digest, its in self._by_use.items() if its is kind]
            # What is kept goes last also where it may go.
            unwanted = [one for one in alike if one not in self._kept]
            wanted = [one for one in alike if one in self._kept and one not in spared]
            chosen = choose_eviction([*unwanted, *wanted], self._pinned, self._users)
            if chosen is None:
                return False
            self.evictions += 1
            self._let_go(chosen)
            return True

    def _let_go(self, digest: str) -> None:
        del self._by_use[digest]
        self._leaving.discard(digest)
        self._engine.unload(digest)

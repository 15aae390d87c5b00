"""Which adapters can answer now: read when they are asked for, the least recently used out first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from raytrain.serving.adapters.bank import NoRoomError


def choose_evictions(ranks: Mapping[str, int], may_go: Collection[str], left_ranks: int) -> list[str] | None:
    """The first of those that may go, without which the others have no more ranks than may be left; None, and nothing
    goes, where that is not enough. ranks: of each that is there."""
    chosen: list[str] = []
    over = sum(ranks.values()) - left_ranks
    for one in may_go:
        if over <= 0:
            break
        chosen.append(one)
        over -= ranks[one]
    return chosen if over <= 0 else None


@dataclass(frozen=True)
class Loading:
    """What it took; nothing where it was there."""

    read_s: float = 0.0
    put_s: float = 0.0


@dataclass(frozen=True)
class _Size:
    """Of an adapter, in the memory of its kind: one kind has no room for another."""

    kind: type
    """Of its weights."""
    rank: int


@dataclass(frozen=True)
class _Refused:
    """For want of room."""

    kind: type
    error: NoRoomError

    def again(self) -> NoRoomError:
        error = self.error
        return NoRoomError(
            error.what, why=error.why, fix=error.fix, digest=error.digest, left_ranks=error.left_ranks
        )


class Holder(Protocol):
    """What of an engine is asked here."""

    def load(self, digest: str, weights: Any) -> None:
        """Raises NoRoomError where all that it has left no room."""
        ...

    def unload(self, digest: str) -> None: ...


class Residents:
    """Of one replica; for any thread. What is read for one adapter never keeps another from answering."""

    def __init__(self, engine: Holder) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._putting = threading.Lock()  # who makes room keeps it until he is there
        self._by_use: OrderedDict[str, _Size] = OrderedDict()
        self._refused: dict[str, _Refused] = {}
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

    def may_fit(self, digest: str, *, is_pinned: bool = False) -> bool:
        """False where it was refused for want of room, and those that may go now would not make enough."""
        with self._lock:
            refused = self._refused.get(digest)
            return (
                refused is None or self._choose(refused.kind, refused.error, is_pinned=is_pinned) is not None
            )

    def load(self, digest: str, read: Callable[[], Any], *, is_pinned: bool = False) -> Loading:
        """Let it answer, and wait until it does; of several that want the same one reads it.

        is_pinned: it will be, and what is kept makes room for it. Others go only where that makes room enough.

        Raises what `read` raises, RefusedError where it does not fit the base model, NoRoomError where too much of what
        is there is pinned or answering; at once, and nothing is read, where that is so since it was refused before.
        """
        with self._lock:
            turn = self._reading.setdefault(digest, threading.Lock())
        with turn:
            with self._lock:
                if digest in self._by_use:
                    return Loading()
            if not self.may_fit(digest, is_pinned=is_pinned):
                raise self._refused[digest].again()
            began = time.perf_counter()
            weights = read()
            was_read = time.perf_counter()
            with self._putting:
                self._put(digest, weights, is_pinned=is_pinned)
            return Loading(was_read - began, time.perf_counter() - was_read)

    def _put(self, digest: str, weights: Any, *, is_pinned: bool) -> None:
        while True:
            try:
                self._engine.load(digest, weights)
                break
            except NoRoomError as error:
                # Whom it lets go leaves at the engine's next turn, once nobody's answer is written with it.
                if not self._make_room(digest, type(weights), error, is_pinned=is_pinned):
                    raise
        with self._lock:
            self.loads += 1
            self._by_use[digest] = _Size(type(weights), weights.rank)
            self._refused.pop(digest, None)

    def _make_room(self, digest: str, kind: type, error: NoRoomError, *, is_pinned: bool) -> bool:
        with self._lock:
            chosen = self._choose(kind, error, is_pinned=is_pinned)
            if chosen is None:
                self._refused[digest] = _Refused(kind, error)
                return False
            for one in chosen:
                self.evictions += 1
                self._let_go(one)
            return True

    def _choose(self, kind: type, error: NoRoomError, *, is_pinned: bool) -> list[str] | None:
        """With the lock."""
        ranks = {digest: size.rank for digest, size in self._by_use.items() if size.kind is kind}
        free = [one for one in ranks if one not in self._pinned and one not in self._users]
        # What is kept goes last also where it may go.
        unwanted = [one for one in free if one not in self._kept]
        wanted = [one for one in free if one in self._kept] if is_pinned else []
        return choose_evictions(ranks, [*unwanted, *wanted], error.left_ranks)

    def _let_go(self, digest: str) -> None:
        del self._by_use[digest]
        self._leaving.discard(digest)
        self._engine.unload(digest)

"""Two processes that write to one registry at the same moment, round after round."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry_contract import V1, V2, move

from raytrain.errors import RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import open_store
from raytrain.release.registry.versions import Version

VERSIONS = (V1, V2, Version(1, 2, 0))

Work = Callable[..., list[bool]]
"""Of a registry's URI, which of the two it is (0, 1), the number of rounds, a barrier and what else it needs: which
rounds it won."""


def at_once(work: Work, uri: str, rounds: int, *more: object) -> tuple[list[bool], list[bool]]:
    """Which rounds each has won."""
    context: Any = multiprocessing.get_context("spawn")  # clients have threads
    barrier, told = context.Barrier(2), context.Queue()
    args = [(work, told, uri, who, rounds, barrier, *more) for who in range(2)]
    writers = [context.Process(target=_tell, args=one) for one in args]
    for one in writers:
        one.start()
    won = dict(told.get(timeout=200) for _ in writers)
    for one in writers:
        one.join()
    assert all(isinstance(one, list) for one in won.values()), won
    return won[0], won[1]


def _tell(work: Work, told: Any, uri: str, who: int, rounds: int, barrier: Any, *more: object) -> None:
    try:
        told.put((who, work(uri, who, rounds, barrier, *more)))
    except BaseException as error:  # the other is not to wait for us
        barrier.abort()
        told.put((who, f"{type(error).__name__}: {error} {getattr(error, 'why', '')}"))
        raise


def claim(uri: str, who: int, rounds: int, barrier: Any) -> list[bool]:
    """The same number of a journal."""
    store, mine = open_store(uri), (b"a", b"b")[who]
    won = []
    for number in range(1, rounds + 1):
        barrier.wait(100)
        won.append(store.create_entry("sums", number, mine + str(number).encode()))
    return won


def promote(uri: str, who: int, rounds: int, barrier: Any) -> list[bool]:
    """One of VERSIONS, each another, in the place of the one that both have seen."""
    registry, won = Registry(open_store(uri)), []
    for _ in range(rounds):
        barrier.wait(100)
        seen = registry.state("sums").aliases["production"]
        barrier.wait(100)
        try:
            move(registry, [one for one in VERSIONS if one != seen][who], seen)
            won.append(True)
        except RefusedError:
            won.append(False)
    return won


def register(uri: str, who: int, rounds: int, barrier: Any, bundle: Path, keys: Path) -> list[bool]:
    """One bundle under a version of a new name, each another."""
    registry, ring = Registry(open_store(uri)), KeyRing(keys)
    for i in range(rounds):
        barrier.wait(100)
        registry.register(f"sums-{i}", VERSIONS[who], bundle, ring, made_from={}, why="a test")
    return [True] * rounds

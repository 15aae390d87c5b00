"""An answer's pieces on their way from an engine's thread to an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain

from raytrain.serving.engine.request import Piece


class Telling:
    """A `Tell` for one request. Made in the event loop that reads it.

    Each piece wakes the loop, crosses processes, and takes the interpreter from the engine's thread meanwhile. So what
    nobody reads along is told once, and who is slower than the engine gets what has come since in one piece.
    """

    def __init__(self, *, is_streamed: bool) -> None:
        self._is_streamed = is_streamed
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[Piece] = asyncio.Queue()
        self._held: list[Piece] = []
        """For the engine's thread alone."""

    def __call__(self, piece: Piece) -> None:
        """In the engine's thread."""
        if not self._is_streamed:
            self._held.append(piece)
            if piece.finish is None:
                return
            piece = merged(self._held)
        self._loop.call_soon_threadsafe(self._told.put_nowait, piece)

    async def next(self) -> Piece:
        """All that has come since, at least one piece."""
        found = [await self._told.get()]
        while not self._told.empty():
            found.append(self._told.get_nowait())
        return merged(found)


def merged(pieces: Sequence[Piece]) -> Piece:
    """Consecutive pieces of an answer as one."""
    if len(pieces) == 1:
        return pieces[0]
    tokens = tuple(chain.from_iterable(one.tokens for one in pieces))
    return Piece("".join(one.text for one in pieces), tokens, pieces[-1].finish)

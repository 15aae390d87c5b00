"""Pieces between an engine's thread and an event loop."""

from __future__ import annotations

import asyncio
import threading

from raytrain.serving.engine.request import Finish, Piece, Token
from raytrain.serving.engine.telling import Telling, merged

FINISH = Finish("length", 3, 0, 3, 0.0, 0.0)
PIECES = [
    Piece("one ", (Token(1, "one ", -0.1),)),
    Piece("two", (Token(2, "two", -0.2),)),
    Piece("", (Token(3, "", -0.3),), FINISH),
]
WHOLE = Piece("one two", tuple(token for piece in PIECES for token in piece.tokens), FINISH)


def tell(telling: Telling, pieces: list[Piece]) -> None:
    """In a thread of its own, as an engine does."""
    thread = threading.Thread(target=lambda: [telling(one) for one in pieces])
    thread.start()
    thread.join()


def test_what_nobody_reads_along_comes_in_one_piece_and_wakes_the_loop_once() -> None:
    async def read() -> None:
        telling = Telling(is_streamed=False)
        tell(telling, PIECES[:2])
        waiting = asyncio.create_task(telling.next())
        await asyncio.sleep(0.05)
        assert not waiting.done(), "until the last piece nothing is told"
        tell(telling, PIECES[2:])
        assert await waiting == WHOLE

    asyncio.run(read())


def test_what_is_streamed_comes_as_it_is_written() -> None:
    async def read() -> None:
        telling = Telling(is_streamed=True)
        for piece in PIECES:
            tell(telling, [piece])
            assert await telling.next() == piece

    asyncio.run(read())


def test_a_slow_reader_gets_what_has_come_since_in_one_piece() -> None:
    async def read() -> None:
        telling = Telling(is_streamed=True)
        tell(telling, PIECES)
        await asyncio.sleep(0)  # the loop has been told of all of them
        assert await telling.next() == WHOLE

    asyncio.run(read())


def test_merged_has_the_last_ones_end() -> None:
    assert merged(PIECES) == WHOLE
    assert merged(PIECES[:1]) is PIECES[0]
    assert merged(PIECES[:2]).finish is None

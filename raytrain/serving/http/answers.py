"""The answers to one request: begun together, all by one digest, and ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from starlette.types import Receive

from raytrain.serving.backend import Ask, Backend, RefusedModel, Served, UnknownModel
from raytrain.serving.engine.request import Piece
from raytrain.serving.http.errors import ApiError, ClientGone

_log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
_Open = AsyncGenerator[Served | Piece, None]


class Answers:
    """`close` them, whatever happens: until then they take places of the engine."""

    def __init__(self, backend: Backend, asks: Sequence[Ask]) -> None:
        self._backend = backend
        self._asks = [replace(one, is_one_of_several=len(asks) > 1) for one in asks]
        self.served = Served("", "", "")
        self._open: list[_Open] = []
        self._opening: list[asyncio.Future[Served]] = []
        self._reading: dict[asyncio.Future[Piece | None], int] = {}
        self._left: set[int] = set()

    async def begin(self) -> None:
        """Returns when it is known who answers. Raises what `Backend.generate` raises.

        What the first answer is told to come from, the others are asked of by its version, all at the same time: an
        alias may move between. Where another replica does not know that version, as while the base model is exchanged,
        all are asked once more.
        """
        try:
            await self._begin(self._asks)
        except (UnknownModel, RefusedModel, ApiError):
            if len(self._open) < 2:  # the first was refused, and that by the name that the client gave
                raise
            await self.close()
            # What was cancelled may still be in an engine, under its id.
            await self._begin([replace(one, id=f"{one.id}b") for one in self._asks])

    async def _begin(self, asks: Sequence[Ask]) -> None:
        self.served = await self._opened(asks[0])
        others = [replace(one, model=self.served.model, arm=None) for one in asks[1:]]
        self._opening = [asyncio.ensure_future(self._opened(one)) for one in others]
        # The first fault is raised; `close` ends what has not begun by then.
        for served in await asyncio.gather(*self._opening):
            if served.digest != self.served.digest:
                raise ApiError(503, "the model was replaced meanwhile", code="model_changed", retry_after_s=1)
        self._left = set(range(len(asks)))

    def _opened(self, ask: Ask) -> Coroutine[Any, Any, Served]:
        """Open in the order in which they were asked for."""
        answer = self._backend.generate(ask)
        self._open.append(answer)
        return _who_answers(answer)

    async def next(self) -> tuple[int, Piece] | None:
        """A piece and the place of its answer; None after the last. No more than one piece of each answer is held.

        Raises ApiError where an answer ends otherwise than by itself or its limit.
        """
        if not self._left:
            return None
        place, piece = await self._next_of_one() if len(self._open) == 1 else await self._next_of_many()
        finish = None if piece is None else piece.finish
        if piece is None or (finish is not None and finish.reason == "cancelled"):
            raise ApiError(503, "the server ended this answer; ask again", code="cancelled", retry_after_s=1)
        if finish is not None:
            self._left.discard(place)
            if finish.reason == "error":
                raise ApiError(500, _why_it_failed(self._asks[place]), code="engine_error")
        return place, piece

    async def _next_of_one(self) -> tuple[int, Piece | None]:
        return 0, await _piece(self._open[0])

    async def _next_of_many(self) -> tuple[int, Piece | None]:
        busy = set(self._reading.values())
        for place in sorted(self._left - busy):
            self._reading[asyncio.ensure_future(_piece(self._open[place]))] = place
        done, _ = await asyncio.wait(self._reading, return_when=asyncio.FIRST_COMPLETED)
        first = min(done, key=lambda one: self._reading[one])
        return self._reading.pop(first), first.result()

    async def close(self) -> None:
        """Whatever has not ended is cancelled."""
        waiting: list[asyncio.Future[Any]] = [*self._opening, *self._reading]
        self._opening, self._reading = [], {}
        opened, self._open, self._left = self._open, [], set()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for fault in await asyncio.gather(*(one.aclose() for one in opened), return_exceptions=True):
            if isinstance(fault, Exception):
                _log.error("an answer could not be closed: %s", type(fault).__name__)


async def _who_answers(answer: _Open) -> Served:
    served = await anext(answer)
    assert isinstance(served, Served), "who answers is told before the first piece"
    return served


def _why_it_failed(ask: Ask) -> str:
    if ask.sampling.json_schema is None:
        return "the model gave what is no number"
    return (
        "the answer cannot be held to this JSON schema any further (ask with a smaller one), or is no number"
    )


async def _piece(answer: _Open) -> Piece | None:
    return cast(Piece | None, await anext(answer, None))


async def while_waited_for(receive: Receive, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """What `work` gives. When the client goes it is cancelled, has ended, and ClientGone is raised.

    The request's body has been read: nothing but its end is received any more.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

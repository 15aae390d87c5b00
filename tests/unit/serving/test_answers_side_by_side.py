"""The answers to one request are written at the same time, over Ray Serve's handles too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raytrain.serving.backend import Ask, Served
from raytrain.serving.engine.request import Finish, Overloaded, Piece, Sampling
from raytrain.serving.http.answers import Answers
from raytrain.serving.remote import Refusal, RemoteBackend

SERVED = Served("sums@1.0.0", "sha256:a", "sha256:b")
_TURNS = 50
"""Of the event loop, while an answer is written."""


class Replicas:
    """A handle as Ray Serve's. Who answers is told at once by `generate`, and with the answer by `answer`."""

    def __init__(self, refuses: int | None = None) -> None:
        """refuses: the place of the ask that has no room."""
        self._refuses = refuses
        self.asked: list[Ask] = []
        self.running = self.most = self.cancelled = 0

    def options(self, *, stream: bool) -> Replicas:
        assert stream
        return self

    @property
    def generate(self) -> Called:
        return Called(self, is_stream=True)

    @property
    def answer(self) -> Called:
        return Called(self, is_stream=False)

    async def told(self, ask: Ask) -> AsyncIterator[Any]:
        place = len(self.asked)
        self.asked.append(ask)
        if place == self._refuses:
            yield Refusal(Overloaded(3, 1.0))
            return
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield SERVED
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            yield Piece(f"answer {place}", (), Finish("stop", 1, 0, 1, 0.0, 0.0))
        finally:
            self.running -= 1


class Called:
    """What `handle.METHOD` gives."""

    def __init__(self, replicas: Replicas, *, is_stream: bool) -> None:
        self._replicas, self._is_stream = replicas, is_stream

    def remote(self, ask: Ask) -> Any:
        found = self._replicas.told(ask)
        return Stream(found, self._replicas) if self._is_stream else Whole(found)


class Stream:
    """Runs on its own, as what crosses from a replica does."""

    def __init__(self, items: AsyncIterator[Any], replicas: Replicas) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._replicas = replicas
        self._task = asyncio.ensure_future(self._collect(items))

    async def _collect(self, items: AsyncIterator[Any]) -> None:
        async for one in items:
            self._queue.put_nowait(one)
        self._queue.put_nowait(None)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        one = await self._queue.get()
        if one is None:
            raise StopAsyncIteration
        return one

    def cancel(self) -> None:
        self._replicas.cancelled += 1
        self._task.cancel()


class Whole:
    """All of it at once."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._task = asyncio.ensure_future(self._collect(items))

    async def _collect(self, items: AsyncIterator[Any]) -> Any:
        found = [one async for one in items]
        return found[0] if isinstance(found[0], Refusal) else tuple(found)

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


def asks(number: int, *, is_streamed: bool) -> list[Ask]:
    return [Ask(f"r-{place}", "sums", "text", Sampling(5), is_streamed) for place in range(number)]


async def texts(answers: Answers) -> dict[int, str]:
    found: dict[int, str] = {}
    try:
        await answers.begin()
        while (told := await answers.next()) is not None:
            found[told[0]] = found.get(told[0], "") + told[1].text
    finally:
        await answers.close()
    return found


@pytest.mark.parametrize("is_streamed", [True, False])
def test_answers_of_one_request_are_written_at_the_same_time(is_streamed: bool) -> None:
    replicas = Replicas()
    found = asyncio.run(texts(Answers(RemoteBackend(replicas), asks(8, is_streamed=is_streamed))))
    assert found == {place: f"answer {place}" for place in range(8)}
    assert replicas.most == 8
    assert [one.model for one in replicas.asked] == ["sums", *["sums@1.0.0"] * 7]
    assert [one.is_streamed for one in replicas.asked] == [is_streamed] * 8


def test_a_single_answer_that_nobody_reads_along_crosses_at_once() -> None:
    replicas = Replicas()
    replicas.options = None  # type: ignore[assignment,method-assign] # not as a stream
    assert asyncio.run(texts(Answers(RemoteBackend(replicas), asks(1, is_streamed=False)))) == {0: "answer 0"}


@pytest.mark.parametrize("is_streamed", [True, False])
def test_where_one_of_them_has_no_room_all_are_given_up(is_streamed: bool) -> None:
    replicas = Replicas(refuses=2)

    async def refused() -> None:
        with pytest.raises(Overloaded):
            await texts(Answers(RemoteBackend(replicas), asks(4, is_streamed=is_streamed)))
        await asyncio.sleep(0)

    asyncio.run(refused())
    assert (len(replicas.asked), replicas.cancelled, replicas.running) == (4, 3, 0)

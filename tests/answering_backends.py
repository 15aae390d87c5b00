"""Backends for tests of HTTP: an engine over a tiny model, one that answers as it is told, and a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from fastapi import FastAPI

from raytrain.models.text_generation import encode_prompt
from raytrain.serving.backend import (
    Ask,
    Classification,
    Classified,
    ClassifyAsk,
    ModelCard,
    PromptTooLong,
    Readiness,
    RefusedModel,
    Served,
    UnknownModel,
)
from raytrain.serving.engine.continuous import ContinuousEngine
from raytrain.serving.engine.request import Finish, FinishReason, GenerationRequest, Piece
from raytrain.serving.engine.telling import Telling
from raytrain.serving.operations.protocol import Loaded, ReplicaState, Target, Unloaded

BASE_DIGEST = "ba5e" * 16
BASE = Served("tiny", BASE_DIGEST, BASE_DIGEST)
CARDS = [
    ModelCard("tiny", BASE_DIGEST, 0, (), True),
    ModelCard("helper", "1" * 64, 1_700_000_000, ("production",), True),
    ModelCard("helper@production", "1" * 64, 1_700_000_000, ("production",), True),
]


class EngineBackend:
    """The base model by itself, through a real engine."""

    def __init__(self, engine: ContinuousEngine, tokenizer: Any) -> None:
        self.engine, self._tokenizer = engine, tokenizer

    async def generate(self, ask: Ask) -> AsyncIterator[Served | Piece]:
        if ask.model != BASE.model:
            raise UnknownModel(ask.model, (BASE.model,))
        ids, most = self._ids(ask.prompt), self.engine.max_context_tokens
        if not ids or len(ids) + ask.sampling.max_new_tokens > most:
            raise PromptTooLong(f"{len(ids)} tokens of prompt; the model has room for {most}", "prompt")
        sampling = replace(ask.sampling, max_new_tokens=ask.sampling.max_new_tokens or most - len(ids))
        if sampling.json_schema is not None:
            self.engine.check_schema(sampling.json_schema)
        told = Telling(is_streamed=ask.is_streamed)
        self.engine.submit(GenerationRequest(ask.id, ids, sampling), told)
        try:
            yield BASE
            while True:
                piece = await told.next()
                yield piece
                if piece.finish is not None:
                    return
        finally:
            self.engine.cancel(ask.id)

    async def classify(self, ask: ClassifyAsk) -> Classified:
        raise UnknownModel(ask.model, (BASE.model,))

    async def models(self) -> list[ModelCard]:
        return CARDS[:1]

    async def readiness(self) -> Readiness:
        return Readiness(True, BASE.model, {}, (), {"local": {"running": self.engine.stats().running}})

    def _ids(self, prompt: Any) -> tuple[int, ...]:
        if prompt and isinstance(prompt[0], int):
            return tuple(prompt)
        return tuple(encode_prompt(self._tokenizer, prompt if isinstance(prompt, str) else list(prompt)))


@dataclass
class ToldBackend:
    """Answers as a test says, and keeps what it was asked and what was closed."""

    pieces: list[str] = field(default_factory=lambda: ["Hello", " there"])
    reason: FinishReason = "stop"
    refusal: Exception | None = None
    """Raised before the first item."""
    fault: Exception | None = None
    """Raised after the last of `pieces`, in place of the end."""
    waits_after: int | None = None
    """It goes silent once so many pieces are told."""
    is_endless: bool = False
    digests: list[str] = field(default_factory=lambda: ["1" * 64])
    """By the number of the ask; the last for all that follow."""
    readiness_told: Readiness = field(
        default_factory=lambda: Readiness(
            True, "tiny", {"helper": "1" * 64}, (), {"local": {"waiting": 3, "adapters": {}}}
        )
    )
    asks: list[Ask] = field(default_factory=list)
    to_classify: list[ClassifyAsk] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    num_told: int = 0

    async def generate(self, ask: Ask) -> AsyncIterator[Served | Piece]:
        digest = self.digests[min(len(self.asks), len(self.digests) - 1)]
        self.asks.append(ask)
        self._refuse(ask.model)
        try:
            yield Served("helper@1.2.0", digest, BASE_DIGEST)
            while True:
                for place, text in enumerate(self.pieces):
                    if place == self.waits_after:
                        await asyncio.Event().wait()
                    self.num_told += 1
                    yield Piece(text)
                    await asyncio.sleep(0)
                if not self.is_endless:
                    break
            if self.fault is not None:
                raise self.fault
            yield Piece("", (), Finish(self.reason, 5, 2, len(self.pieces), 0.001, 0.002))
        finally:
            self.closed.append(ask.id)

    async def classify(self, ask: ClassifyAsk) -> Classified:
        """Longer texts are likelier of the second class."""
        self.to_classify.append(ask)
        self._refuse(ask.model)
        if self.waits_after is not None:
            try:
                await asyncio.Event().wait()
            finally:
                self.closed.append(ask.id)
        chances = [len(one) / (len(one) + 10) for one in ask.texts]
        answers = [Classification((1 - one, one), 5, 0.001) for one in chances]
        served = Served("helper@1.2.0", self.digests[0], BASE_DIGEST)
        return Classified(served, ("short", "long"), tuple(answers))

    def _refuse(self, model: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        if model == "revoked":
            raise RefusedModel(model)
        if model.partition("@")[0] not in ("tiny", "helper"):
            raise UnknownModel(model, tuple(one.id for one in CARDS))

    async def models(self) -> list[ModelCard]:
        return CARDS

    async def readiness(self) -> Readiness:
        return self.readiness_told


class ToldOperations:
    """Two replicas on which everything succeeds."""

    async def load(self, reference: str, *, keep: bool = True) -> tuple[Target, list[Loaded]]:
        return Target(reference, "1" * 64), [Loaded(one, False, 0.1, 0.2, 0.3) for one in ("a", "b")]

    async def unload(self, reference: str) -> tuple[Target, list[Unloaded]]:
        return Target(reference, "1" * 64), [Unloaded("a", True), Unloaded("b", True, True)]

    async def drain(self, *, is_on: bool) -> list[ReplicaState]:
        return [ReplicaState("a", is_on, 1), ReplicaState("b", is_on, 0, ("helper@1.2.0",))]

    async def standing(self) -> list[ReplicaState]:
        return await self.drain(is_on=False)

    async def follow(self) -> None:
        await asyncio.Event().wait()


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of a server, on a port of its own, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=2, server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server starts")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Fails with `what` where it does not come true."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)

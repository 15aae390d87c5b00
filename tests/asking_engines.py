"""Requests to an engine, and what came of them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

from raytrain.serving.engine.request import Engine, Finish, GenerationRequest, Piece, Sampling

_numbers = itertools.count()


class Asked:
    """One request, whose pieces are collected."""

    def __init__(
        self, engine: Engine, prompt: Sequence[int], adapter: str | None = None, **sampling: Any
    ) -> None:
        self.id = f"request-{next(_numbers)}"
        self.pieces: list[Piece] = []
        self._engine, self._ended = engine, threading.Event()
        self.begun = threading.Event()
        settings = Sampling(**{"max_new_tokens": 8, **sampling})
        engine.submit(GenerationRequest(self.id, tuple(prompt), settings, adapter), self._tell)

    def _tell(self, piece: Piece) -> None:
        assert not self._ended.is_set(), "nothing is told after the end"
        self.pieces.append(piece)
        self.begun.set()
        if piece.finish is not None:
            self._ended.set()

    def wait(self) -> Finish:
        assert self._ended.wait(120), "an answer ends"
        finish = self.pieces[-1].finish
        assert finish is not None
        return finish

    @property
    def text(self) -> str:
        self.wait()
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> list[int]:
        """Where logprobs were asked for."""
        self.wait()
        return [token.id for piece in self.pieces for token in piece.tokens]

    def cancel(self) -> None:
        self._engine.cancel(self.id)

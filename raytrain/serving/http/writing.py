"""What both kinds of answers have in common when they are written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from raytrain.serving.backend import Served
from raytrain.serving.engine.request import FinishReason, Piece, Token
from raytrain.serving.http.shapes import FinishWord, Origin, Usage

_LEAST_LOGPROB = -9999.0
"""Told of tokens that could not be chosen, as OpenAI's API does: JSON has no infinity."""


@dataclass(frozen=True)
class Head:
    """What every answer and every chunk begins with."""

    id: str
    served: Served
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def origin(self) -> Origin:
        one = self.served
        told: Origin = {"model": one.model, "digest": one.digest, "base_digest": one.base_digest}
        if one.arm is not None:
            told["trial"] = one.arm
        return told

    @property
    def fingerprint(self) -> str:
        return self.served.digest.removeprefix("sha256:")[:12]

    @property
    def headers(self) -> dict[str, str]:
        """Of the response; what no header may hold is percent-encoded."""
        one = self.served
        told = {"x-raytrain-digest": quote(one.digest, ":"), "x-raytrain-model": quote(one.model, "@/:+")}
        return told if one.arm is None else {**told, "x-raytrain-trial": one.arm}


@dataclass
class Written:
    """One whole answer."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    reason: FinishReason = "stop"

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        if piece.finish is not None:
            self.reason = piece.finish.reason


class Writer(Protocol):
    """Of one request's answers, in the shape of one route."""

    def whole(self, answers: Sequence[Written], usage: Usage) -> Mapping[str, Any]: ...

    def opening(self, place: int) -> Mapping[str, Any] | None:
        """The chunk before an answer's first piece."""
        ...

    def chunks(self, place: int, piece: Piece) -> Sequence[Mapping[str, Any]]: ...

    def closing(self, usage: Usage) -> Mapping[str, Any]:
        """The chunk that tells the tokens of all."""
        ...


def finish_word(reason: FinishReason) -> FinishWord:
    return "length" if reason == "length" else "stop"


def told_logprob(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)

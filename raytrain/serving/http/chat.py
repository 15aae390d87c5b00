"""Answers of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence

from raytrain.serving.engine.request import Piece, Token
from raytrain.serving.http.shapes import (
    ChatAnswer,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatLogprobs,
    FinishWord,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from raytrain.serving.http.writing import Head, Written, finish_word, told_logprob

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class ChatWriter:
    """A `Writer`."""

    def __init__(self, head: Head, top_logprobs: int | None) -> None:
        """top_logprobs: as `Sampling` has it; of alternatives beyond them, which the log asked for, nothing is told."""
        self._head, self._top_logprobs = head, top_logprobs

    def whole(self, answers: Sequence[Written], usage: Usage) -> ChatAnswer:
        head = self._head
        return {
            "id": head.id,
            "object": "chat.completion",
            "created": head.created,
            "model": head.served.model,
            "system_fingerprint": head.fingerprint,
            "choices": [
                {
                    "index": place,
                    "message": {"role": "assistant", "content": one.text, "refusal": None},
                    "logprobs": self._logprobs(one.tokens),
                    "finish_reason": finish_word(one.reason),
                }
                for place, one in enumerate(answers)
            ],
            "usage": usage,
            "raytrain": head.origin,
        }

    def opening(self, place: int) -> ChatChunk:
        return self._chunk([self._choice(place, {"role": "assistant", "content": ""}, (), None)])

    def chunks(self, place: int, piece: Piece) -> list[ChatChunk]:
        told = []
        if piece.text or piece.tokens:
            told.append(self._chunk([self._choice(place, {"content": piece.text}, piece.tokens, None)]))
        if piece.finish is not None:
            told.append(self._chunk([self._choice(place, {}, (), finish_word(piece.finish.reason))]))
        return told

    def closing(self, usage: Usage) -> ChatChunk:
        return self._chunk([], usage)

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None = None) -> ChatChunk:
        head = self._head
        return {
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.served.model,
            "system_fingerprint": head.fingerprint,
            "choices": choices,
            "usage": usage,
            "raytrain": head.origin,
        }

    def _choice(
        self, place: int, delta: ChatDelta, tokens: Sequence[Token], reason: FinishWord | None
    ) -> ChatChunkChoice:
        logprobs = self._logprobs(tokens) if tokens else None
        return {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, tokens: Sequence[Token]) -> ChatLogprobs | None:
        if self._top_logprobs is None:
            return None
        return {"content": [_told(one, self._top_logprobs) for one in tokens], "refusal": None}


def _told(token: Token, most: int) -> TokenLogprob:
    others = [_one(text, logprob) for _, text, logprob in token.alternatives[:most]]
    return {**_one(token.text, token.logprob), "top_logprobs": others}


def _one(text: str, logprob: float) -> TopLogprob:
    """Bytes are null where a token is a part of a character: its text is no longer what it stands for."""
    known = None if _UNREADABLE in text else list(text.encode())
    return {"token": text, "logprob": told_logprob(logprob), "bytes": known}

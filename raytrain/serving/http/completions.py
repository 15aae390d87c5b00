"""Answers of /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence

from raytrain.serving.engine.request import Piece, Token
from raytrain.serving.http.shapes import (
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    FinishWord,
    Usage,
)
from raytrain.serving.http.writing import Head, Written, finish_word, told_logprob


class CompletionWriter:
    """A `Writer`. `text_offset` counts the characters of the answer alone."""

    def __init__(self, head: Head, top_logprobs: int | None) -> None:
        """top_logprobs: as `Sampling` has it; of alternatives beyond them, which the log asked for, nothing is told."""
        self._head, self._top_logprobs = head, top_logprobs

    def whole(self, answers: Sequence[Written], usage: Usage) -> CompletionAnswer:
        return self._answer(
            [
                self._choice(place, one.text, one.tokens, finish_word(one.reason))
                for place, one in enumerate(answers)
            ],
            usage,
        )

    def opening(self, place: int) -> None:  # noqa: ARG002 - Writer's
        return None

    def chunks(self, place: int, piece: Piece) -> list[CompletionAnswer]:
        reason = None if piece.finish is None else finish_word(piece.finish.reason)
        if not (piece.text or piece.tokens or reason):
            return []
        return [self._answer([self._choice(place, piece.text, piece.tokens, reason)], None)]

    def closing(self, usage: Usage) -> CompletionAnswer:
        return self._answer([], usage)

    def _answer(self, choices: list[CompletionChoice], usage: Usage | None) -> CompletionAnswer:
        head = self._head
        return {
            "id": head.id,
            "object": "text_completion",
            "created": head.created,
            "model": head.served.model,
            "system_fingerprint": head.fingerprint,
            "choices": choices,
            "usage": usage,
            "raytrain": head.origin,
        }

    def _choice(
        self, place: int, text: str, tokens: Sequence[Token], reason: FinishWord | None
    ) -> CompletionChoice:
        return {
            "index": place,
            "text": text,
            "logprobs": None if self._top_logprobs is None else self._logprobs(tokens, self._top_logprobs),
            "finish_reason": reason,
        }

    def _logprobs(self, tokens: Sequence[Token], most: int) -> CompletionLogprobs:
        return {
            "tokens": [one.text for one in tokens],
            "token_logprobs": [told_logprob(one.logprob) for one in tokens],
            "top_logprobs": [_alternatives(one, most) for one in tokens] if most else None,
            "text_offset": [one.offset for one in tokens],
        }


def _alternatives(token: Token, most: int) -> dict[str, float]:
    """By text, the chosen token among them; of tokens that look alike the likeliest is told."""
    told: dict[str, float] = {}
    for _, text, logprob in token.alternatives[:most]:
        told.setdefault(text, told_logprob(logprob))
    told.setdefault(token.text, told_logprob(token.logprob))
    return told

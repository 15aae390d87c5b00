"""One answer while it is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from raytrain.serving.engine.choosing import Chooser, Chosen
from raytrain.serving.engine.json_texts import JsonText
from raytrain.serving.engine.request import Finish, FinishReason, GenerationRequest, Piece, Tell, Token
from raytrain.serving.engine.text_stream import TextStream
from raytrain.serving.engine.token_texts import TokenTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


class Answer:
    """From a request's arrival to its last piece. For the engine's thread, but for `is_cancelled`."""

    def __init__(
        self,
        request: GenerationRequest,
        tell: Tell,
        tokenizer: PreTrainedTokenizerBase,
        token_texts: TokenTexts,
    ) -> None:
        self.request, self._tell, self._token_texts = request, tell, token_texts
        self.chooser = Chooser(request.sampling)
        self.json: JsonText | None = None
        self.is_cancelled = False
        self.is_ended = False
        self.num_cached = 0
        self._stream = TextStream(tokenizer, request.sampling.stop, request.prompt)
        self._num_new = 0
        self._arrived = time.perf_counter()
        self._queue_s = self._first_token_s = 0.0

    def begin(self) -> None:
        """Its prompt is about to be read."""
        self._queue_s = time.perf_counter() - self._arrived

    def take(self, chosen: Chosen, end_tokens: Collection[int]) -> None:
        """The next token; whether it ends the answer is told by `is_ended`."""
        if chosen.id < 0 or self._is_json_lost:
            self.end("error")
            return
        self._num_new += 1
        if self._num_new == 1:
            self._first_token_s = time.perf_counter() - self._arrived
        if chosen.id in end_tokens:
            self.end("stop")
            return
        if self.json is not None:
            self.json.take(chosen.id)
            if self._is_json_lost:
                self.end("error")
                return
        tokens = self._told(chosen)
        text = self._stream.take(chosen.id)
        if self._stream.is_stopped or (self.json is not None and self.json.is_complete):
            self.end("stop", text, tokens)
        elif self._num_new >= self.request.sampling.max_new_tokens:
            self.end("length", text, tokens)
        elif text or tokens:
            self._say(Piece(text, tokens))

    def end(self, reason: FinishReason, text: str = "", tokens: tuple[Token, ...] = ()) -> None:
        """Its last piece; what was held back goes with it."""
        if self.is_ended:
            return
        self.is_ended = True
        text += self._stream.finish()
        finish = Finish(
            "stop" if self._stream.is_stopped else reason,
            len(self.request.prompt),
            self.num_cached,
            self._num_new,
            self._queue_s,
            self._first_token_s,
        )
        self._say(Piece(text, tokens, finish))

    @property
    def _is_json_lost(self) -> bool:
        return self.json is not None and self.json.is_lost

    def _say(self, piece: Piece) -> None:
        try:
            self._tell(piece)
        except Exception:  # noqa: BLE001 - whoever cannot be told, as his event loop is closed, harms nobody else
            _log.exception("a piece of %s could not be told", self.request.id)
            self.is_cancelled = True

    def _told(self, chosen: Chosen) -> tuple[Token, ...]:
        if self.request.sampling.top_logprobs is None:
            return ()
        alternatives = tuple((token, self._text(token), logprob) for token, logprob in chosen.alternatives)
        text, offset = self._text(chosen.id), self._stream.num_characters
        return (Token(chosen.id, text, chosen.logprob, alternatives, offset),)

    def _text(self, token: int) -> str:
        """Before the stream has taken it."""
        return self._token_texts.of(token, is_first=self._stream.is_at_beginning)

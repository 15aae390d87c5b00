"""Failover of a stream: an answer whose replica died is gone on with where another writes it anew."""

from __future__ import annotations

from dataclasses import replace

from raytrain.serving.engine.request import Piece


class OtherAnswer(Exception):
    """What is written anew does not begin with what was told."""


class ToldSoFar:
    """Of one answer, to who reads it along.

    The same prompt, adapter and seed draw the same tokens, so that another replica's answer begins with what was told
    of the first one's. Where rounding beside other answers has made it another one, that is found out.
    """

    def __init__(self) -> None:
        self._text = ""
        self._ids: list[int] = []
        self._num_again = (0, 0)
        """Characters and tokens that the present replica has written."""

    def begin_anew(self) -> None:
        """Of what follows, whatever was told is left out."""
        self._num_again = (0, 0)

    def new_of(self, piece: Piece) -> Piece | None:
        """What of the piece has not been told; None where that is nothing. Raises OtherAnswer."""
        num_characters, num_tokens = self._num_again
        ids = [one.id for one in piece.tokens]
        text_again = self._text[num_characters : num_characters + len(piece.text)]
        ids_again = self._ids[num_tokens : num_tokens + len(ids)]
        if not piece.text.startswith(text_again) or ids[: len(ids_again)] != ids_again:
            raise OtherAnswer
        self._text += piece.text[len(text_again) :]
        self._ids += ids[len(ids_again) :]
        self._num_again = (num_characters + len(piece.text), num_tokens + len(ids))
        if piece.finish is not None and self._num_again != (len(self._text), len(self._ids)):
            raise OtherAnswer
        if not text_again and not ids_again:
            return piece
        new = replace(piece, text=piece.text[len(text_again) :], tokens=piece.tokens[len(ids_again) :])
        return new if new.text or new.tokens or new.finish else None

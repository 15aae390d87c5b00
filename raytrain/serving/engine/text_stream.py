"""An answer's tokens as text that can be sent on while it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
"""What a part of a character is shown as until the rest of it is there."""

_MOST_OF_A_CHARACTER = 4
"""Bytes, and so tokens: after as many it will not be finished."""


class TextStream:
    """Text is told once it cannot change: whole characters, and nothing that may begin a stop text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids: list[int] = []
        self._known = 0  # ids before this place have given all their text
        self._before = 0  # from where they are read again: some tokens lose a space at a text's beginning
        self._text = ""
        self._told = 0
        self.is_stopped = False

    def take(self, token: int) -> str:
        """What can be told after this token; sets `is_stopped` where a stop text is complete."""
        self._ids.append(token)
        before = self._decode(self._ids[self._before : self._known])
        now = self._decode(self._ids[self._before :])
        is_unfinished = now.endswith(_UNFINISHED) and len(self._ids) - self._known < _MOST_OF_A_CHARACTER
        if is_unfinished or len(now) <= len(before):
            return ""
        self._before, self._known = self._known, len(self._ids)
        return self._add(now[len(before) :])

    def finish(self) -> str:
        """What was held back, unless a stop text ended it."""
        if self.is_stopped:
            return ""
        before = self._decode(self._ids[self._before : self._known])
        told = self._add(self._decode(self._ids[self._before :])[len(before) :])
        if not self.is_stopped:
            told += self._text[self._told :]
            self._told = len(self._text)
        return told

    def _add(self, new: str) -> str:
        longest = max(map(len, self._stops), default=0)
        searched = max(0, len(self._text) - longest)
        self._text += new
        ends = [place for place in (self._text.find(stop, searched) for stop in self._stops) if place >= 0]
        if ends:
            self.is_stopped = True
            self._text = self._text[: min(ends)]
            safe = len(self._text)
        else:
            safe = len(self._text) - self._held_back()
        told, self._told = self._text[self._told : max(safe, self._told)], max(safe, self._told)
        return told

    def _held_back(self) -> int:
        """Characters at the end which a stop text may begin with."""
        for size in range(min(len(self._text), max(map(len, self._stops), default=0)), 0, -1):
            if any(stop.startswith(self._text[-size:]) for stop in self._stops):
                return size
        return 0

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

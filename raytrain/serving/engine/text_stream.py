"""An answer's tokens as text that can be sent on while it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
"""What a part of a character is shown as until the rest of it is there."""

_MOST_OF_A_CHARACTER = 4
"""Bytes, and so tokens: of as many that are no character the first will be none."""

_REREAD = 16
"""Tokens before the last on which no character hangs: what goes on being none is not read from its beginning."""

_PROMPT_TOKENS = 8
"""Of a prompt's end, in which whole text is looked for."""


class TextStream:
    """Text is told once it cannot change: whole characters, and nothing that may begin a stop text.

    Tokens are read again with some before them: where a text begins, some tokenizers drop a space.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = (), prompt: Sequence[int] = ()
    ) -> None:
        """prompt: tokens that the answer goes on from."""
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids = self._end_of(prompt)
        self._read = len(
            self._decode(self._ids)
        )  # characters of these ids that are the prompt's, or in `_text`
        self._since = 0  # ids since all that there was had been read
        self._unfinished = 0  # ids in a row after which the text was no whole one
        self._text = ""
        self._told = 0
        self.is_stopped = False

    @property
    def is_at_beginning(self) -> bool:
        """Whether there is no text before the next token, of the prompt neither."""
        return not self._read and not self._text

    @property
    def num_characters(self) -> int:
        """Whole ones of the answer, whether they are told or held back."""
        return len(self._text)

    def take(self, token: int) -> str:
        """What can be told after this token; sets `is_stopped` where a stop text is complete."""
        self._ids.append(token)
        self._since += 1
        now = self._decode(self._ids)
        if not now.endswith(_UNFINISHED):
            self._unfinished = 0
            return self._read_all(now)
        self._unfinished += 1
        if self._unfinished < _MOST_OF_A_CHARACTER:
            return ""
        new, self._read = now[self._read : -1], max(self._read, len(now) - 1)
        if len(self._ids) > 2 * _REREAD:
            self._reread_from(self._ids[-_REREAD:], num_left=1)
        return self._add(new)

    def finish(self) -> str:
        """What was held back, unless a stop text ended it."""
        if self.is_stopped:
            return ""
        told = self._add(self._decode(self._ids)[self._read :])
        if not self.is_stopped:
            told += self._text[self._told :]
            self._told = len(self._text)
        return told

    def _end_of(self, prompt: Sequence[int]) -> list[int]:
        """The fewest tokens that are whole text; none where there is none, as after a special token."""
        for size in range(1, min(len(prompt), _PROMPT_TOKENS) + 1):
            text = self._decode(prompt[-size:])
            if text and _UNFINISHED not in text:
                return list(prompt[-size:])
        return []

    def _read_all(self, now: str) -> str:
        if len(now) <= self._read:
            return ""
        new = now[self._read :]
        self._reread_from(self._ids[-self._since :], num_left=0)
        self._since = 0
        return self._add(new)

    def _reread_from(self, ids: list[int], num_left: int) -> None:
        """num_left: characters at their end that are still to be told."""
        self._ids = ids
        self._read = max(0, len(self._decode(ids)) - num_left)

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

"""Texts that wait to be classified, and what their requests wait for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from raytrain.serving.backend import Classification

Found = Future[list[Classification]]


@dataclass
class Asked:
    """The texts of one request."""

    adapter: str
    num_texts: int
    found: Found = field(default_factory=Future)
    arrived: float = field(default_factory=time.perf_counter)
    answers: dict[int, Classification] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for the rest."""
        return self.found.done()

    def take(self, place: int, answer: Classification) -> None:
        """Of one text; the last ends the request."""
        self.answers[place] = answer
        if len(self.answers) == self.num_texts:
            # Whoever asked may have cancelled just now.
            with suppress(InvalidStateError):
                self.found.set_result([self.answers[one] for one in range(self.num_texts)])

    def fail(self, fault: Exception) -> None:
        """Nothing happens where it is over."""
        with suppress(InvalidStateError):
            self.found.set_exception(fault)


@dataclass(frozen=True)
class Text:
    asked: Asked
    place: int
    """Among the texts of its request."""
    ids: tuple[int, ...]


def choose_together(lengths: Sequence[int], most_tokens: int) -> list[int]:
    """Places of those that are read in one pass: the first in any case, and of the others in their order each that
    leaves the padded pass within `most_tokens`."""
    chosen, longest = [0], lengths[0]
    for place, length in enumerate(lengths[1:], start=1):
        if max(longest, length) * (len(chosen) + 1) <= most_tokens:
            chosen.append(place)
            longest = max(longest, length)
    return chosen


class Waiting:
    """In the order in which they came; for whoever holds the engine's lock."""

    def __init__(self) -> None:
        self._texts: deque[Text] = deque()

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, asked: Asked, texts: Sequence[tuple[int, ...]]) -> None:
        self._texts.extend(Text(asked, place, ids) for place, ids in enumerate(texts))

    def take_over(self) -> list[Text]:
        """Those of requests that are over."""
        over = [one for one in self._texts if one.asked.is_over]
        if over:
            self._texts = deque(one for one in self._texts if not one.asked.is_over)
        return over

    def take_together(self, most_tokens: int) -> list[Text]:
        """What the next pass reads; empty where nothing waits."""
        if not self._texts:
            return []
        chosen = set(choose_together([len(one.ids) for one in self._texts], most_tokens))
        taken = [one for place, one in enumerate(self._texts) if place in chosen]
        self._texts = deque(one for place, one in enumerate(self._texts) if place not in chosen)
        return taken

    def take_all(self) -> list[Text]:
        taken, self._texts = list(self._texts), deque()
        return taken

"""Messages of workers over a link that may lose one, or bring it twice."""

from __future__ import annotations

from typing import Any

Message = tuple[str, dict[str, Any]]


class Parcels:
    """Of one sender: each once, in its order, however often and in whatever order they come."""

    def __init__(self) -> None:
        self._early: dict[int, Message] = {}
        self._next = 0

    def take(self, number: int, message: Message) -> list[Message]:
        """What can be handed on now."""
        if number >= self._next:
            self._early[number] = message
        ready = []
        while self._next in self._early:
            ready.append(self._early.pop(self._next))
            self._next += 1
        return ready

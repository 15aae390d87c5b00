"""A registry as somebody sees it who looks several times a second: a journal is read when it has grown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import State, state_of

_READ_ANEW_S = 30.0
"""So often all of a journal is read all the same: somebody may have put back an older copy of the registry."""


class Following:
    """For one thread."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry, self._clock = registry, clock
        self._known: dict[str, tuple[State, int, float]] = {}
        """Of each name its state, the number of its entries, and when they are to be read again."""

    def states(self, names: Iterable[str] | None) -> dict[str, State]:
        """As of now; of all names that have an entry where None are given.

        Raises IntegrityError where a journal is broken, StorageError where the store cannot be read,
        NotRegisteredError where a name that is given is not there.
        """
        wanted = self._registry.names_there() if names is None else names
        found = {name: self._state(name, is_given=names is not None) for name in wanted}
        self._known = {name: one for name, one in self._known.items() if name in found}
        return {name: one for name, one in found.items() if one is not None}

    def _state(self, name: str, *, is_given: bool) -> State | None:
        """None where nothing has happened to a name that was only found."""
        state, num, until = self._known.get(name, (State(), 0, 0.0))
        now = self._clock()
        if num and now < until and not self._registry.store.has_entry(name, num + 1):
            return state
        if not is_given and not num and not self._registry.store.has_entry(name, 1):
            return None
        entries = self._registry.entries(name)
        state = state_of(entries)
        self._known[name] = state, len(entries), now + _READ_ANEW_S
        return state

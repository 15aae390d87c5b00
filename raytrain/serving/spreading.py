"""Which replica is asked: one that can answer with the adapter at once, unless others are much less busy. Pure.

An adapter that many ask for is asked of one replica until that has `spread_at` more to do than the least busy; then of
another, which reads it too, and so on: an adapter spreads as it is asked for, and stays nowhere for good. Production is
loaded everywhere, so that only how busy they are counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

_PREFERRED = 2
"""Replicas of the first rank: Ray Serve asks both how busy they are now, and takes the less busy."""


@dataclass(frozen=True)
class Seen:
    """A replica, as far as an ingress knows it."""

    id: str
    load: int
    """Requests that it answers or that wait there."""
    is_holder: bool
    """Whether it can answer this request without reading an adapter first."""


def rank_replicas(
    replicas: Sequence[Seen], spread_at: int, turn: int, *, wants_adapter: bool
) -> tuple[list[str], list[str]]:
    """Who is to be asked, and who is where none of them takes it. turn: a number that grows with each request, so that
    replicas which are alike take turns."""
    if not replicas:
        return [], []
    start = turn % len(replicas)
    in_turn = [*replicas[start:], *replicas[:start]]
    by_load = sorted(in_turn, key=lambda one: one.load)
    least = by_load[0].load
    holders = [one for one in by_load if one.is_holder and one.load < least + spread_at]
    first = (holders or by_load)[:_PREFERRED] if holders or not wants_adapter else by_load[:1]
    chosen = [one.id for one in first]
    return chosen, [one.id for one in by_load if one.id not in chosen]


class Sent:
    """What was sent where lately: a replica that was asked for an adapter has it before it says so.

    Clients may ask for whatever name they like: of more than `most` the oldest go, as does with each note what is older
    than `remembered_s`, and no question looks at all of them.
    """

    def __init__(self, remembered_s: float, most: int = 10_000) -> None:
        self._remembered_s, self._most = remembered_s, most
        self._at: OrderedDict[tuple[str, str], float] = OrderedDict()  # the oldest first

    def note(self, replica: str, model: str, now: float) -> None:
        self._at[replica, model] = now
        self._at.move_to_end((replica, model))
        while len(self) > self._most or now - next(iter(self._at.values())) >= self._remembered_s:
            self._at.popitem(last=False)

    def has(self, replica: str, model: str, now: float) -> bool:
        """Whether it was asked for this model, and may not have told yet that it holds it."""
        at = self._at.get((replica, model))
        return at is not None and now - at < self._remembered_s

    def __len__(self) -> int:
        return len(self._at)

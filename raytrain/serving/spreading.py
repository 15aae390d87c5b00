"""Which replica is asked: one that can answer with the adapter at once, unless others are much less busy. Pure.

An adapter that many ask for is asked of one replica until that has `spread_at` more to do than the least busy; then of
another, which reads it too, and so on: an adapter spreads as it is asked for, and stays nowhere for good. Production is
loaded everywhere, so that only how busy they are counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_PREFERRED = 2
"""Replicas of the first rank: Ray Serve asks both how busy they are now, and takes the less busy."""


@dataclass(frozen=True)
class Seen:
    """A replica, as far as an ingress knows it."""

    id: str
    load: int
    """Requests that it answers or that wait there."""
    models: Collection[str]
    """Names that it can answer without reading an adapter first."""


def rank_replicas(
    replicas: Sequence[Seen], model: str | None, spread_at: int, turn: int
) -> tuple[list[str], list[str]]:
    """Who is to be asked, and who is where none of them takes it. model: None where it matters to no replica; turn: a
    number that grows with each request, so that replicas which are alike take turns."""
    if not replicas:
        return [], []
    start = turn % len(replicas)
    in_turn = [*replicas[start:], *replicas[:start]]
    by_load = sorted(in_turn, key=lambda one: one.load)
    least = by_load[0].load
    holders = [
        one for one in by_load if model is not None and model in one.models and one.load < least + spread_at
    ]
    first = (holders or by_load)[:_PREFERRED] if model is None or holders else by_load[:1]
    chosen = [one.id for one in first]
    return chosen, [one.id for one in by_load if one.id not in chosen]


class Sent:
    """What was sent where lately: a replica that was asked for an adapter has it before it says so."""

    def __init__(self, remembered_s: float) -> None:
        self._remembered_s = remembered_s
        self._at: dict[tuple[str, str], float] = {}

    def note(self, replica: str, model: str, now: float) -> None:
        self._at[replica, model] = now
        if len(self._at) > 10_000:
            self._at = {key: at for key, at in self._at.items() if now - at < self._remembered_s}

    def models(self, told: Mapping[str, Collection[str]], now: float) -> dict[str, set[str]]:
        """Names of each replica: those that it has told, and those that it was asked for since."""
        found = {replica: set(names) for replica, names in told.items()}
        for (replica, model), at in self._at.items():
            if replica in found and now - at < self._remembered_s:
                found[replica].add(model)
        return found

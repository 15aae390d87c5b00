"""Which version production goes back to: read off the journal, and decided without touching anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from raytrain.errors import RefusedError
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version


@dataclass(frozen=True)
class Way:
    """From what serves now to another version."""

    now: Version
    to: Version
    passed_over: tuple[Version, ...] = ()
    """Nearer than `to`, and overridden."""


IsPromotion = Callable[[Entry], bool]
"""Whether a move of production was let in by the gate, and is no way back."""
IsOverridden = Callable[[Version], bool]
"""Whether the gate had refused a version of production, and somebody let it through."""


def good_versions(entries: Iterable[Entry], is_promotion: IsPromotion) -> list[Version]:
    """Versions that production can go back through, the one that serves now last. Pure.

    Going back to a version takes those after it off the list: whoever goes back twice gets two versions back, and never
    to what was just left. One that is promoted again comes last, and what served until then before it. What was
    withdrawn is not on it.
    """
    stack: list[Version] = []
    withdrawn: set[Version] = set()
    for one in entries:
        if one.action == "withdraw":
            withdrawn.add(Version.parse(one.details["version"]))
        if not one.moves(PRODUCTION):
            continue
        version = Version.parse(one.details["version"])
        if version in stack:
            if is_promotion(one):
                stack.remove(version)
            else:
                stack = stack[: stack.index(version)]
        stack.append(version)
    return [one for one in stack if one not in withdrawn]


def choose_target(
    entries: list[Entry],
    name: str,
    to: Version | None,
    is_promotion: IsPromotion,
    is_overridden: IsOverridden,
) -> Way:
    """Without `to` the nearest good version that the gate let in by itself. Pure.

    Raises RefusedError where there is nothing to go back to, and where `to` never was in production.
    """
    stack = good_versions(entries, is_promotion)
    if not stack:
        raise RefusedError(
            f"{name} has nothing in production",
            why="no version was ever moved there",
            fix=f"raytrain promote {name}@VERSION --to production",
        )
    now = stack[-1]
    if to is None:
        return _nearest(name, stack, is_overridden)
    was_there = {Version.parse(one.details["version"]) for one in entries if one.moves(PRODUCTION)}
    if to not in was_there:
        others = ", ".join(map(str, sorted(was_there - {now}, reverse=True))) or "none"
        raise RefusedError(
            f"{name} cannot go back to {to}",
            why=f"it serves {now}, and in production were besides: {others}",
            fix="name one of these; another version comes through the gate: raytrain promote",
        )
    return Way(now, to)


def _nearest(name: str, stack: list[Version], is_overridden: IsOverridden) -> Way:
    now, earlier = stack[-1], list(reversed(stack[:-1]))
    for num_passed, one in enumerate(earlier):
        if not is_overridden(one):
            return Way(now, one, tuple(earlier[:num_passed]))
    why = "it is the first in production, or all before it were gone back from or withdrawn"
    if earlier:
        why = f"what is left before it came by an override of the gate: {', '.join(map(str, earlier))}"
    raise RefusedError(
        f"{name} has no {'good ' if earlier else ''}version before {now}",
        why=why,
        fix="name one that was there with --to VERSION, or promote another",
    )

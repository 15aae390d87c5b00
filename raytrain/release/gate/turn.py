"""Which move of an alias a record is for. It is decided on before that move, and lets nothing else happen: not to
another name, and not a second time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raytrain.release.registry.journal import Entry, content_hash, content_of


@dataclass(frozen=True)
class Follows:
    """The entry after which somebody has decided: by which the alias came to where it was then, and the journal's first
    where it was nowhere. Tags, versions and other aliases may come between. Each entry holds the hash of the one before
    it, so this is over all that had happened."""

    entry: int
    hash: str
    """SHA-256, hexadecimal."""


@dataclass(frozen=True)
class Turn:
    """One move."""

    name: str
    alias: str
    version: str
    follows: Follows | None
    """None where the record is of an older raytrain, which did not say it."""


OLDER = "it was written by an older raytrain, and does not say which move it is for"


def follows_now(entries: Sequence[Entry], alias: str) -> Follows:
    """After which the next move of this alias would come. Of a journal that has entries."""
    last = next((one for one in reversed(entries) if one.moves(alias)), entries[0])
    return Follows(last.number, content_hash(content_of(last)))


def turn_of(name: str, move: Entry, entries: Sequence[Entry]) -> Turn:
    """That of a move in this journal."""
    alias = str(move.details["alias"])
    return Turn(name, alias, str(move.details["version"]), follows_now(entries[: move.number - 1], alias))


def unlike(told: Turn, taken: Turn) -> str:
    """Why a record that tells of one move does not let another happen; empty where both are the same."""
    for thing, theirs, ours in (
        ("name", told.name, taken.name),
        ("alias", told.alias, taken.alias),
        ("version", told.version, taken.version),
    ):
        if theirs != ours:
            return f"it is about another {thing}: {theirs}, not {ours}"
    if told.follows is None:
        return OLDER
    if told.follows != taken.follows:
        where = f"entry {told.follows.entry} of the journal"
        return f"it is for another move, that after {where}, and was used, or came too late"
    return ""

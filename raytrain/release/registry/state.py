"""What a journal's entries come to: versions, aliases and tags of one name. Pure."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.versions import Version
from raytrain.storage.manifest import is_digest

PRODUCTION: Final = "production"
PREVIOUS: Final = "previous"
ALIASES = ("dev", "staging", PRODUCTION, PREVIOUS)
"""`previous` is never set by hand: it is the version that production was moved from."""


@dataclass(frozen=True)
class Released:
    """A version, which never changes."""

    version: Version
    digest: str
    """Of its bundle."""
    made_from: dict[str, str]
    """Digests by their role: base_model, tokenizer, dataset, recipe, seed, …"""
    entry: Entry


@dataclass
class State:
    """Of one name."""

    versions: dict[Version, Released] = field(default_factory=dict)
    aliases: dict[str, Version] = field(default_factory=dict)
    moved: dict[str, Entry] = field(default_factory=dict)
    """By which entry each alias came where it is."""
    tags: dict[Version, set[str]] = field(default_factory=dict)
    withdrawn: dict[Version, Entry] = field(default_factory=dict)
    """Versions that may be released no more, and by which entry."""

    @property
    def set_aliases(self) -> list[str]:
        """Those that somebody moved where they are."""
        return [alias for alias in self.aliases if alias != PREVIOUS]

    def refuse_withdrawn(self, name: str, version: Version) -> None:
        """Raises RefusedError that says who withdrew it, when and why."""
        entry = self.withdrawn.get(version)
        if entry is not None:
            raise RefusedError(
                f"{name}@{version} was withdrawn",
                why=f"{entry.time} by {entry.who}: {entry.why}",
                fix="take another version; what is good all the same is added under a new one",
            )


def state_of(entries: Iterable[Entry]) -> State:
    """Raises IntegrityError where an entry cannot follow those before it."""
    state = State()
    for entry in entries:
        try:
            _take(state, entry, entry.details)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"entry {entry.number} of the journal cannot follow those before it",
                why=f"{entry.action}: {error}",
                fix="put back a copy of the registry that is whole; find out who wrote there",
            ) from error
    return state


def _take(state: State, entry: Entry, details: dict[str, Any]) -> None:
    if entry.action == "register":
        version = Version.parse(details["version"])
        if version in state.versions:
            raise ValueError(f"{version} is there already")
        made_from = {str(role): str(digest) for role, digest in details["made_from"].items()}
        state.versions[version] = Released(version, _digest(details["digest"]), made_from, entry)
        state.tags[version] = set(map(str, details.get("tags", ())))
    elif entry.action == "move":
        alias, version = str(details["alias"]), state.versions[Version.parse(details["version"])].version
        before = state.aliases.get(alias)
        if details["before"] != (None if before is None else str(before)):
            raise ValueError(f"it moves {alias} from {details['before']}, and that is {before}")
        if version in state.withdrawn:
            raise ValueError(f"it moves {alias} to {version}, which was withdrawn")
        if details.get("decision") is not None:
            _digest(details["decision"])
        if alias == PRODUCTION and before not in (None, version):
            state.aliases[PREVIOUS], state.moved[PREVIOUS] = before, entry
        state.aliases[alias], state.moved[alias] = version, entry
    elif entry.action == "tag":
        version = Version.parse(details["version"])
        state.tags[version] = (state.tags[version] | set(details["added"])) - set(details["removed"])
    elif entry.action == "withdraw":
        version = state.versions[Version.parse(details["version"])].version
        if version in state.withdrawn or version in (state.aliases[one] for one in state.set_aliases):
            raise ValueError(f"{version} was withdrawn before, or an alias names it")
        state.withdrawn[version] = entry
        if state.aliases.get(PREVIOUS) == version:
            del state.aliases[PREVIOUS], state.moved[PREVIOUS]
    else:
        raise ValueError("no such action is known")


def _digest(text: object) -> str:
    if not is_digest(text):
        raise ValueError(f"{text!r:.120} is no digest")
    return str(text)


def is_tag(text: str) -> bool:
    """Whether it can be shown as one: 1 to 100 printable signs."""
    return bool(text.strip()) and len(text) <= 100 and text.isprintable()


@contextmanager
def without_collection() -> Iterator[None]:
    """For states of thousands of names, none of them garbage: to look for it takes as long as the work itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

"""A registry of releases: names, versions that never change, aliases that move for one at a time.

Nothing but a name's journal says what is released. A bundle stands before the entry that releases it: whoever is killed
leaves at worst a bundle that no entry names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError, NotRegisteredError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry import leftovers
from raytrain.release.registry.findings import Fault, Orphan, Tell, passed_over
from raytrain.release.registry.folder_store import FolderStore
from raytrain.release.registry.journal import Entry, Journal
from raytrain.release.registry.standing import Standing
from raytrain.release.registry.state import ALIASES, PREVIOUS, Released, State, state_of, without_collection
from raytrain.release.registry.store import Store
from raytrain.release.registry.versions import Version
from raytrain.release.signing import Signed, verify
from raytrain.storage.manifest import digest_hex

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class Registry:
    """Reads and writes of several processes, on machines that share the store, may run into each other."""

    def __init__(self, store: Store | Path) -> None:
        self.store: Store = FolderStore(store) if isinstance(store, Path) else store

    @property
    def place(self) -> str:
        """As a person names it."""
        return self.store.place

    def names(self) -> list[str]:
        """Of all that was ever registered here."""
        return [one for one in self.names_there() if self.store.entries(one)]

    def states(self, tell: Tell | None = None) -> dict[str, State]:
        """Of every name. tell: of those whose journal is broken, which otherwise is raised."""
        found = {}
        with without_collection():
            for name in self.names_there():
                with passed_over(name, "journal", tell):
                    entries = self.journal(name).read()
                    if entries:
                        found[name] = state_of(entries)
        return found

    def entries(self, name: str) -> list[Entry]:
        """All that happened to a name. Raises NotRegisteredError where there is no such name."""
        entries = self.journal(name).read()
        if not entries:
            known = self.names()
            near = nearest(name, known)
            told = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            raise NotRegisteredError(
                f"{name} is not in the registry",
                why=f"{self.place} holds {told or 'nothing yet'}",
                fix=f"did you mean {near}?" if near else "check the name and the registry's place",
            )
        return entries

    def state(self, name: str) -> State:
        """Its versions, aliases and tags, as of now."""
        return state_of(self.entries(name))

    def released(self, name: str) -> list[Released]:
        """All versions of a name; none where nothing was ever released under it."""
        return list(state_of(self.journal(name).read()).versions.values())

    def register(
        self,
        name: str,
        version: Version,
        bundle: Path,
        ring: KeyRing,
        *,
        made_from: Mapping[str, str],
        why: str,
        details: Mapping[str, Any] | None = None,
    ) -> Released:
        """Release a signed bundle under a version that is not taken.

        details: what else the entry is to say of it, as evidence. Raises RefusedError or IntegrityError where its
        signature does not verify, RefusedError where the version is taken, StorageError where the store cannot be
        written to; the registry is then as it was.
        """
        digest = verify(bundle, ring).artifact.digest
        told = {**(details or {}), "version": str(version), "digest": digest, "made_from": dict(made_from)}

        def check(state: State) -> None:
            taken = state.versions.get(version)
            if taken is not None:
                raise RefusedError(
                    f"{name}@{version} is there already",
                    why=f"released {taken.entry.time} by {taken.entry.who}, with the bundle {taken.digest}",
                    fix="versions never change: take another number",
                )

        check(state_of(self.journal(name).read()))
        standing = Standing(self.store, name, digest, ring)
        was_left = standing.is_there and digest_hex(digest) not in self._named(name)
        standing.keep(bundle, lambda: digest_hex(digest) in self._named(name))
        seal = standing.renewed() if was_left else standing.seal()
        self._append(name, "register", told, why, check)
        if standing.seal() != seal:  # whoever has looked for orphans before this entry may have deleted it
            standing.keep(bundle, lambda: True)
        return self.state(name).versions[version]

    def find(self, reference: str) -> Released:
        """By NAME@VERSION or NAME@ALIAS. Raises NotRegisteredError where there is none, ConfigError where the reference
        is neither."""
        name, _, wanted = reference.partition("@")
        state = self.state(name)
        version = state.aliases.get(wanted)
        if version is None and wanted and wanted[0].isdigit():
            version = Version.parse(wanted)
        released = None if version is None else state.versions.get(version)
        if released is None:
            versions = ", ".join(map(str, sorted(state.versions, reverse=True)[:5]))
            aliases = ", ".join(f"{alias} is {version}" for alias, version in sorted(state.aliases.items()))
            error = NotRegisteredError if wanted else ConfigError
            raise error(
                f"{reference} is not in the registry" if wanted else f"{reference} names no version",
                why=f"newest versions: {versions}; aliases: {aliases or 'none yet'}",
                fix=f"write {name}@ with one of these versions or aliases",
            )
        return released

    def verified(self, reference: str, ring: KeyRing) -> Signed:
        """A version's bundle, where its signature counts and it is the bundle that was released.

        Raises RefusedError or IntegrityError.
        """
        return Standing(self.store, reference.partition("@")[0], self.find(reference).digest, ring).verified()

    def move(
        self,
        name: str,
        alias: str,
        version: Version,
        *,
        expected: Version | None,
        decision: str | None,
        why: str,
        follows: int | None = None,
    ) -> Entry:
        """Let an alias name this version, if it names `expected` until then (None: nothing yet).

        decision: digest of the record that allows it. follows: number of the entry after which that was decided, where
        nobody may have moved the alias since, to and fro neither; None = whatever happened. Raises RefusedError where
        the alias is elsewhere by now or the version was withdrawn, NotRegisteredError where version or alias is not
        known.
        """
        if alias not in ALIASES or alias == PREVIOUS:
            error = ConfigError if alias == PREVIOUS else NotRegisteredError
            raise error(
                f"{alias!r} is no alias that can be moved",
                why=f"`{PREVIOUS}` follows production by itself" if alias == PREVIOUS else "it is not known",
                fix=f"take one of {', '.join(one for one in ALIASES if one != PREVIOUS)}",
            )
        self.find(f"{name}@{version}")
        details = {
            "alias": alias,
            "version": str(version),
            "before": None if expected is None else str(expected),
            "decision": decision,
        }

        def check(state: State) -> None:
            state.refuse_withdrawn(name, version)
            now, by = state.aliases.get(alias), state.moved.get(alias)
            is_late = follows is not None and by is not None and by.number > follows
            if now != expected or is_late:
                not_so = "again" if now == expected else f"not {expected or 'nothing'}"
                raise RefusedError(
                    f"{name}@{alias} was not moved",
                    why=f"it is {now or 'nothing'}, {not_so}"
                    + (f": moved {by.time} by {by.who}, {by.why}" if by else ""),
                    fix="look at what it is now, and decide again",
                )

        return self._append(name, "move", details, why, check)

    def tag(
        self, name: str, version: Version, *, added: Set[str], removed: Set[str] = frozenset(), why: str = ""
    ) -> Entry | None:
        """Give a version tags, or take some away; None where that is how it stands: nothing is written then.

        Raises ConfigError where the version has not a tag that is to be taken away.
        """
        self.find(f"{name}@{version}")

        def check(state: State) -> None:
            missing = sorted(removed - state.tags[version])
            if missing:
                raise ConfigError(
                    f"{name}@{version} has no tag {', '.join(missing)}",
                    why=f"its tags: {', '.join(sorted(state.tags[version])) or 'none'}",
                    fix="take away only what is there; nothing was written",
                )

        if not removed and added <= self.state(name).tags[version]:
            return None
        details = {"version": str(version), "added": sorted(added), "removed": sorted(removed)}
        return self._append(name, "tag", details, why, check)

    def withdraw(self, name: str, version: Version, *, why: str) -> Entry:
        """Let a version be released no more, for good. `previous` names it no longer.

        Raises NotRegisteredError where it is not there, RefusedError where an alias that was set names it or it was
        withdrawn before.
        """
        self.find(f"{name}@{version}")

        def check(state: State) -> None:
            state.refuse_withdrawn(name, version)
            named = sorted(alias for alias in state.set_aliases if state.aliases[alias] == version)
            if named:
                raise RefusedError(
                    f"{name}@{version} is not withdrawn",
                    why=f"it is {' and '.join(named)}",
                    fix="move the alias first: raytrain promote, or raytrain rollback",
                )

        return self._append(name, "withdraw", {"version": str(version)}, why, check)

    def audit(self, ring: KeyRing) -> Iterator[tuple[str, list[Fault]]]:
        """Name by name, everything that is not as it should be: the journal, and each released bundle with its
        signature. All of it is read where it lies. Of what was withdrawn only the journal counts."""
        for name in self.names_there():
            yield name, list(self._faults(name, ring))

    def _faults(self, name: str, ring: KeyRing) -> Iterator[Fault]:
        try:
            state = state_of(self.journal(name).read(fresh=True))
        except PlatformError as error:
            yield Fault(name, "journal", error.line)
            return
        for version in sorted(state.versions.keys() - state.withdrawn.keys()):
            try:
                Standing(self.store, name, state.versions[version].digest, ring).check()
            except PlatformError as error:
                yield Fault(name, str(version), error.line)

    def orphans(self, tell: Tell | None = None) -> list[Orphan]:
        """What writers left that were killed, or have not finished yet: bundles that no entry names, files that are not
        whole, records and approvals that nobody signed. tell: of what is broken, which otherwise is raised."""
        return leftovers.find(self.store, _NAME, self._named, tell)

    def delete(self, orphans: Sequence[Orphan], *, grace_s: float = leftovers.GRACE_S) -> list[Orphan]:
        """What `orphans` found, unless it means something by now, or somebody wrote there within the grace and may be
        at it. Returns what was deleted."""
        return leftovers.delete(self.store, orphans, self._named, grace_s)

    def journal(self, name: str) -> Journal:
        """Raises ConfigError where this cannot be a name."""
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be a name in the registry",
                why="it becomes the name of a folder",
                fix="give the name without its version"
                if _NAME.fullmatch(name.partition("@")[0])
                else "use small letters, digits, '-', '_' and '.', and begin with a letter or digit",
            )
        return Journal(self.store, name)

    def _append(
        self, name: str, action: str, details: Mapping[str, Any], why: str, check: Callable[[State], None]
    ) -> Entry:
        """Once `check` has nothing against it in the state that it is appended to."""
        journal = self.journal(name)
        while True:
            entries = journal.read()
            check(state_of(entries))
            entry = journal.append(entries, action, details, why)
            if entry is not None:
                return entry

    def _named(self, name: str) -> set[str]:
        """Digests of all bundles that entries name."""
        return {digest_hex(one.digest) for one in state_of(self.journal(name).read()).versions.values()}

    def names_there(self) -> list[str]:
        """Of which anything is there, an entry or a bundle."""
        return [one for one in self.store.names() if _NAME.fullmatch(one)]

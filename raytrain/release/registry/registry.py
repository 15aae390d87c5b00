"""A registry of releases in a folder.

    NAME/journal/00000001.json …    what happened, in order; nothing else says what is released
    NAME/bundles/<digest>/          a bundle, immutable, by its digest
    NAME/bundles/<digest>.sig       its signature

A bundle stands before the entry that releases it: whoever is killed leaves at worst a bundle that no entry names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.journal import Entry, Journal
from raytrain.release.registry.state import ALIASES, PREVIOUS, Released, State, state_of
from raytrain.release.registry.versions import Version
from raytrain.release.signing import Signed, signature_place, verify
from raytrain.storage.artifact import copy_artifact
from raytrain.storage.location import Location

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Fault:
    """Something that `audit` found."""

    name: str
    thing: str
    what: str


class Registry:
    """Reads and writes of several processes, on machines that share the folder, may run into each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Of all that was ever registered here."""
        return [one for one in self._folders() if Journal(self.folder / one / "journal").read()]

    def entries(self, name: str) -> list[Entry]:
        """All that happened to a name. Raises ConfigError where there is no such name."""
        entries = self._journal(name).read()
        if not entries:
            raise ConfigError(
                f"{name} is not in the registry",
                why=f"{self.folder} holds {', '.join(self.names()) or 'nothing yet'}",
                fix="check the name and the registry's folder",
            )
        return entries

    def state(self, name: str) -> State:
        """Its versions, aliases and tags, as of now."""
        return state_of(self.entries(name))

    def released(self, name: str) -> list[Released]:
        """All versions of a name; none where nothing was ever released under it."""
        return list(state_of(self._journal(name).read()).versions.values())

    def register(
        self,
        name: str,
        version: Version,
        bundle: Path,
        ring: KeyRing,
        *,
        made_from: Mapping[str, str],
        why: str,
    ) -> Released:
        """Release a signed bundle under a version that is not taken.

        Raises RefusedError or IntegrityError where its signature does not verify, RefusedError where the version is
        taken, StorageError where the folder cannot be written to; the registry is then as it was.
        """
        signed = verify(bundle, ring)
        digest = signed.artifact.digest
        details = {"version": str(version), "digest": digest, "made_from": dict(made_from)}

        def check(state: State) -> None:
            taken = state.versions.get(version)
            if taken is not None:
                raise RefusedError(
                    f"{name}@{version} is there already",
                    why=f"released {taken.entry.time} by {taken.entry.who}, with the bundle {taken.digest}",
                    fix="versions never change: take another number",
                )

        check(state_of(self._journal(name).read()))
        place = self._bundle(name, digest)
        copy_artifact(Location(str(bundle)), Location(str(place)))
        Location(str(signature_place(place))).write_bytes(signature_place(bundle).read_bytes())
        verify(place, ring)  # what is released is what lies here, whatever became of the other
        self._append(name, "register", details, why, check)
        return self.state(name).versions[version]

    def find(self, reference: str) -> Released:
        """By NAME@VERSION or NAME@ALIAS. Raises ConfigError where there is none."""
        name, _, wanted = reference.partition("@")
        state = self.state(name)
        version = state.aliases.get(wanted)
        if version is None and wanted and wanted[0].isdigit():
            version = Version.parse(wanted)
        released = None if version is None else state.versions.get(version)
        if released is None:
            versions = ", ".join(map(str, sorted(state.versions, reverse=True)[:5]))
            aliases = ", ".join(f"{alias} is {version}" for alias, version in sorted(state.aliases.items()))
            raise ConfigError(
                f"{reference} is not in the registry" if wanted else f"{reference} names no version",
                why=f"newest versions: {versions}; aliases: {aliases or 'none yet'}",
                fix=f"write {name}@VERSION or {name}@ALIAS",
            )
        return released

    def verified(self, reference: str, ring: KeyRing) -> Signed:
        """A version's bundle, where its signature counts and it is the bundle that was released.

        Raises RefusedError or IntegrityError.
        """
        released = self.find(reference)
        signed = verify(self._bundle(reference.partition("@")[0], released.digest), ring)
        if signed.artifact.digest != released.digest:
            raise IntegrityError(
                f"{reference} is not the bundle that was released",
                why=f"there: {signed.artifact.digest}, released: {released.digest}",
                fix="put the right one back; find out who wrote there",
            )
        return signed

    def move(
        self,
        name: str,
        alias: str,
        version: Version,
        *,
        expected: Version | None,
        decision: str | None,
        why: str,
    ) -> Entry:
        """Let an alias name this version, if it names `expected` until then (None: nothing yet).

        decision: digest of the record that allows it. Raises RefusedError where the alias is elsewhere by now,
        ConfigError where version or alias is not known.
        """
        if alias not in ALIASES or alias == PREVIOUS:
            raise ConfigError(
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
            now = state.aliases.get(alias)
            if now != expected:
                by = state.moved.get(alias)
                raise RefusedError(
                    f"{name}@{alias} was not moved",
                    why=f"it is {now or 'nothing'}, not {expected or 'nothing'}"
                    + (f": moved {by.time} by {by.who}, {by.why}" if by else ""),
                    fix="look at what it is now, and decide again",
                )

        return self._append(name, "move", details, why, check)

    def tag(
        self, name: str, version: Version, *, added: Set[str], removed: Set[str] = frozenset(), why: str = ""
    ) -> Entry:
        """Give a version tags, or take some away."""
        self.find(f"{name}@{version}")
        details = {"version": str(version), "added": sorted(added), "removed": sorted(removed)}
        return self._append(name, "tag", details, why, lambda _: None)

    def audit(self, ring: KeyRing) -> list[Fault]:
        """Everything that is not as it should be: journals, and each released bundle with its signature."""
        faults = []
        for name in self._folders():
            try:
                versions = state_of(self._journal(name).read()).versions
            except PlatformError as error:
                faults.append(Fault(name, "journal", f"{error.what}: {error.why}"))
                continue
            for version in sorted(versions):
                try:
                    self.verified(f"{name}@{version}", ring)
                except PlatformError as error:
                    faults.append(Fault(name, str(version), f"{error.what}: {error.why}"))
        return faults

    def orphans(self) -> list[Path]:
        """What writers left that were killed: bundles that no entry names, and files that were not finished."""
        found: list[Path] = []
        for name in self._folders():
            digests = {_short(one.digest) for one in state_of(self._journal(name).read()).versions.values()}
            bundles = self.folder / name / "bundles"
            there = sorted(bundles.iterdir()) if bundles.is_dir() else []
            found += [one for one in there if one.name.removesuffix(".sig") not in digests]
            found += self._journal(name).strays()
        return found

    def delete(self, orphans: Sequence[Path]) -> None:
        """What `orphans` found, while nobody registers."""
        for place in orphans:
            Location(str(place)).delete()

    def _append(
        self, name: str, action: str, details: Mapping[str, Any], why: str, check: Callable[[State], None]
    ) -> Entry:
        """Once `check` has nothing against it in the state that it is appended to."""
        journal = self._journal(name)
        while True:
            entries = journal.read()
            check(state_of(entries))
            entry = journal.append(entries, action, details, why)
            if entry is not None:
                return entry

    def _folders(self) -> list[str]:
        there = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        return [one.name for one in there if _NAME.fullmatch(one.name) and one.is_dir()]

    def _journal(self, name: str) -> Journal:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be a name in the registry",
                why="it becomes the name of a folder",
                fix="use small letters, digits, '-', '_' and '.', and begin with a letter or digit",
            )
        return Journal(self.folder / name / "journal")

    def _bundle(self, name: str, digest: str) -> Path:
        return self.folder / name / "bundles" / _short(digest)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")

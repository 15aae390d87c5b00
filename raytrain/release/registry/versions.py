"""Semantic versions, and which one follows from what has changed."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from raytrain.errors import ConfigError

Bump = Literal["major", "minor", "patch"]

_NUMBER = r"(0|[1-9]\d*)"
_FORM = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?", re.ASCII)

_MAJOR = ("base_model", "tokenizer")
_PATCH = ("seed",)


@functools.total_ordering
@dataclass(frozen=True)
class Version:
    """A version as in https://semver.org (2.0.0), without build metadata: nothing is told apart by it."""

    major: int
    minor: int
    patch: int
    pre_release: tuple[str, ...] = ()

    @classmethod
    @functools.lru_cache(maxsize=1 << 16)  # a registry has the same few versions under many names
    def parse(cls, text: str) -> Self:
        """Raises ConfigError where the text is no version."""
        found = _FORM.fullmatch(text)
        parts = found[4].split(".") if found and found[4] else []
        if found is None or any(one.isdigit() and one != "0" and one[0] == "0" for one in parts):
            raise ConfigError(
                f"{text!r} is no version",
                why="versions are three numbers, as semver.org has them, and may be marked as a pre-release",
                fix="write for example 1.2.0 or 2.0.0-rc.1",
            )
        return cls(int(found[1]), int(found[2]), int(found[3]), tuple(parts))

    def __str__(self) -> str:
        numbers = f"{self.major}.{self.minor}.{self.patch}"
        return f"{numbers}-{'.'.join(self.pre_release)}" if self.pre_release else numbers

    def __lt__(self, other: Self) -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[object, ...]:
        """Rule 11: numbers rank below words, fewer words below more, and a release above what led to it."""
        words = tuple((0, int(one), "") if one.isdigit() else (1, 0, one) for one in self.pre_release)
        return self.major, self.minor, self.patch, not words, words

    def bumped(self, bump: Bump) -> Version:
        """The next release. After a pre-release it is the one that this led to, where that step is large enough."""
        smaller = {"major": (self.minor, self.patch), "minor": (self.patch,), "patch": ()}[bump]
        if self.pre_release and not any(smaller):
            return Version(self.major, self.minor, self.patch)
        if bump == "major":
            return Version(self.major + 1, 0, 0)
        if bump == "minor":
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)


def bump_for(before: Mapping[str, str], now: Mapping[str, str]) -> Bump:
    """How large a step is, by what two versions were made from: digests by their role.

    Another base model or tokenizer is major: what was built beside the old one no longer fits. Another recipe or other
    rows are minor; another seed, or the same once more, a patch.
    """
    changed = {role for role in before.keys() | now.keys() if before.get(role) != now.get(role)}
    if changed & set(_MAJOR):
        return "major"
    return "minor" if changed - set(_PATCH) else "patch"


def next_version(released: Iterable[tuple[Version, Mapping[str, str]]], now: Mapping[str, str]) -> Version:
    """The version after the newest of these; 1.0.0 where there is none."""
    newest = max(released, key=lambda one: one[0], default=None)
    return Version(1, 0, 0) if newest is None else newest[0].bumped(bump_for(newest[1], now))

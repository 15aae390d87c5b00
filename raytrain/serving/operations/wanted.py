"""What an operator wants of a running service, known to all of its processes: which versions stay loaded, and whether
it takes requests.

No process keeps it for the others. Each holds a copy, each change bears a stamp, and where two copies meet the later
stamp counts (a map of last-writer-wins registers, Shapiro et al. 2011): whoever starts later learns it from any that is
there, and it is forgotten when all of them have ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

_DRAIN = "drain"
_LOAD = "load "


@dataclass(frozen=True, order=True)
class Wish:
    """One thing as it was wanted last."""

    stamp: tuple[int, str]
    """Nanoseconds since 1970, by the clock of who wanted it; and a random word, for two at the same moment."""
    is_on: bool


@dataclass(frozen=True)
class Wanted:
    """All of it."""

    wishes: Mapping[str, Wish] = field(default_factory=dict)

    @property
    def is_draining(self) -> bool:
        """Whether no new requests are to be taken."""
        return self._is_on(_DRAIN)

    @property
    def loaded(self) -> list[str]:
        """Versions that are to stay loaded, as NAME@VERSION."""
        return sorted(key.removeprefix(_LOAD) for key in self.wishes if key != _DRAIN and self._is_on(key))

    def merged(self, other: Wanted) -> Wanted:
        """Of each thing what was wanted later."""
        keys = self.wishes.keys() | other.wishes.keys()
        both = {key: [one.wishes[key] for one in (self, other) if key in one.wishes] for key in keys}
        return Wanted({key: max(found) for key, found in both.items()})

    def draining(self, *, is_on: bool) -> Wanted:
        """The same, and this as of now."""
        return self._with(_DRAIN, is_on=is_on)

    def loading(self, reference: str, *, is_on: bool) -> Wanted:
        """reference: NAME@VERSION."""
        return self._with(_LOAD + reference, is_on=is_on)

    def _is_on(self, key: str) -> bool:
        return key in self.wishes and self.wishes[key].is_on

    def _with(self, key: str, *, is_on: bool) -> Wanted:
        before = self.wishes.get(key)
        # Another's clock may be ahead: what is wanted after is stamped after.
        moment = max(time.time_ns(), before.stamp[0] + 1 if before is not None else 0)
        return Wanted({**self.wishes, key: Wish((moment, secrets.token_hex(4)), is_on)})

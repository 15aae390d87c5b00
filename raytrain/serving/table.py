"""Which version answers to which alias, and why another does not: as a replica knows it at one moment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from raytrain.errors import StorageError, line_of
from raytrain.release.registry.state import PRODUCTION
from raytrain.serving.adapters.bank import NoRoomError
from raytrain.serving.adapters.opening import Servable

_PRODUCTION = f"@{PRODUCTION}"


@dataclass(frozen=True)
class Table:
    """All routes."""

    aliases: dict[str, Servable] = field(default_factory=dict)
    """By `name@alias`."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why what an alias names now is not served."""
    complaint: str | None = None
    """Why the registry could not be asked."""
    unread: frozenset[str] = frozenset()
    """Of those refused whose files could not be read: nobody knows whether they may answer."""
    crowded: dict[str, str] = field(default_factory=dict)
    """Of those refused for which there is no room: the digest that waits for it."""

    @property
    def production(self) -> dict[str, Servable]:
        """By name."""
        return {
            key.removesuffix(_PRODUCTION): one
            for key, one in self.aliases.items()
            if key.endswith(_PRODUCTION)
        }

    @property
    def unanswered(self) -> list[str]:
        """Names whose version in production is refused while nothing answers in its place. Not those whose files cannot
        be read: that is the registry's fault, with which all that answers goes on."""
        return sorted(
            one.removesuffix(_PRODUCTION)
            for one in self.refused.keys() - self.aliases.keys() - self.unread
            if one.endswith(_PRODUCTION)
        )

    def undecided(self, reference: str) -> bool:
        """Whether it is refused for a reason that may pass, and nothing answers in its place."""
        may_pass = reference in self.unread or reference in self.crowded
        return may_pass and reference not in self.aliases

    def naming(self, references: Collection[str]) -> Table:
        """Without what the registry, which has been asked, names no more."""
        gone = (self.aliases.keys() | self.refused.keys()) - set(references)
        found = self
        for one in gone:
            found = found._without(one)
        return replace(found, complaint=None)

    def passing_over(self, reference: str) -> Table:
        """What it names is nothing for this base model."""
        return replace(self._without(reference), aliases=self.aliases)

    def admitting(self, reference: str, one: Servable) -> Table:
        """It answers from now on."""
        found = self._without(reference)
        return replace(found, aliases={**self.aliases, reference: one})

    def refusing(self, reference: str, error: Exception, *, was_good: bool = False) -> Table:
        """What answers goes on; not where it is the version that is refused, and was_good until now."""
        found = self._without(reference)
        is_unread = isinstance(error, StorageError | OSError)
        return replace(
            found,
            aliases=found.aliases if was_good else self.aliases,
            refused={**found.refused, reference: line_of(error)},
            unread=found.unread | {reference} if is_unread else found.unread,
            crowded={**found.crowded, reference: error.digest}
            if isinstance(error, NoRoomError)
            else found.crowded,
        )

    def _without(self, reference: str) -> Table:
        return replace(
            self,
            aliases={key: one for key, one in self.aliases.items() if key != reference},
            refused={key: why for key, why in self.refused.items() if key != reference},
            unread=self.unread - {reference},
            crowded={key: digest for key, digest in self.crowded.items() if key != reference},
        )

"""`trials:` of a serving config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raytrain.config.section import Section
from raytrain.errors import ConfigError
from raytrain.release.registry.state import ALIASES, PREVIOUS, PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.storage.manifest import digest_of, short_digest

Mode = Literal["canary", "shadow"]


class TrialSection(Section):
    """`trials[]:` a candidate, held against what a name has in production."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Whose requests take part; each name is in one trial at most."""
    candidate: str = "staging"
    """An alias (staging, dev) or a version (1.2.0)."""
    mode: Mode = "shadow"
    """canary = the candidate answers in production's place; shadow = it answers beside, and nobody waits for it."""
    share: float = Field(default=0.1, gt=0.0, le=1.0)
    """Of callers: as `user` in a request names them, else of requests by their id."""
    pairs: int = Field(default=1000, ge=20)
    """Of a shadow, how many requests are compared: as many, and the first, whenever one looks. Of a canary, how many
    callers each side must have: what came until then is compared."""
    slower_by: float = Field(default=0.25, gt=0.0, le=10.0)
    """A candidate counts as slower where its times are surely longer by more than this share. A shadow's answers after
    production, beside other requests: a smaller difference may be theirs."""

    @field_validator("candidate")
    @classmethod
    def _is_no_production(cls, candidate: str) -> str:
        aliases = [one for one in ALIASES if one not in (PRODUCTION, PREVIOUS)]
        if candidate not in aliases:
            try:
                Version.parse(candidate)
            except ConfigError as error:
                raise ValueError(
                    f"{candidate!r} is neither {' nor '.join(aliases)}, nor a version"
                ) from error
        return candidate

    @property
    def reference(self) -> str:
        """As `name@staging`."""
        return f"{self.name}@{self.candidate}"

    @property
    def id(self) -> str:
        """Another for every other trial: what was measured under other rules is no part of this one. The share may
        grow meanwhile."""
        return short_digest(digest_of(self.model_dump(mode="json", exclude={"share"})))

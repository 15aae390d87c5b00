"""What is in production, and how it was trained: what the next one begins from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raytrain.config.document import Document
from raytrain.config.recipe import build
from raytrain.data.section import SourceSection
from raytrain.errors import DataError
from raytrain.pipeline.loop import fresh_rows
from raytrain.release.gate.about import about_bundle
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.training.spec import RunSpec


@dataclass(frozen=True)
class Production:
    """A version that answers, and its recipe."""

    version: Version
    digest: str
    """Of its bundle."""
    model: str
    """Where its trained artifact lies."""
    spec: RunSpec
    sources: tuple[SourceSection, ...]
    """All that it has learned from, also what retrainings before this one drew a part of."""


def find_production(registry: Registry, name: str, ring: KeyRing, records: Records) -> Production:
    """Raises what verifying it raises; DataError where its trained artifact, or its recipe, is not at hand, ConfigError
    where the recipe is of another raytrain, and not valid any more."""
    reference = f"{name}@{PRODUCTION}"
    released = registry.find(reference)
    about = about_bundle(registry.verified(reference, ring).artifact)
    known = records.find_artifact(about.subject)
    if known is None or known.uri is None:
        raise DataError(
            f"{reference} cannot be trained again from here",
            why=f"these records know no artifact {about.subject}, which {released.version} is made of",
            fix="run this where it was trained, or with that RAYTRAIN_DATABASE",
        )
    artifact = open_artifact(Location.parse(known.uri))
    recipe = artifact.manifest.provenance.get("config")
    if not isinstance(recipe, dict):
        raise DataError(
            f"{reference} cannot be trained again",
            why=f"{known.uri} does not say by which recipe it was trained",
            fix="train and release a version with this version of raytrain first",
        )
    spec = build(RunSpec, Document(recipe, {(): f"the recipe of {reference}"}))
    return Production(
        released.version, released.digest, known.uri, spec, tuple(_all_sources(spec.data.sources))
    )


def _all_sources(sources: list[SourceSection]) -> list[SourceSection]:
    """Those of a recipe that a retraining has written are told by its plan, each once."""
    found: list[SourceSection] = []
    for one in sources:
        plan = None if one.path is None else fresh_rows.plan_beside(one.path)
        told: list[Any] = (
            [one]
            if plan is None
            else [build(SourceSection, Document(each)) for each in plan.content["sources"]]
        )
        found += [each for each in told if each not in found]
    return found


def when_promoted(registry: Registry, name: str, version: Version) -> str | None:
    """When a version was put into production, by the journal; None where it never was."""
    for one in registry.entries(name):
        told = one.details
        if one.moves(PRODUCTION) and told["version"] == str(version) and told["before"] != str(version):
            return str(one.time)
    return None

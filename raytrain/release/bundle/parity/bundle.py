"""A committed bundle, opened to be checked, and the trained model that it says it is."""

from __future__ import annotations

from dataclasses import dataclass

from raytrain.errors import ConfigError, IntegrityError
from raytrain.release.bundle.description import BUNDLE_KIND, BundleDescription, read_description
from raytrain.release.bundle.subject import Subject, find_subject
from raytrain.runs.records import open_records
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import short_digest


@dataclass(frozen=True)
class OpenedBundle:
    """All of its files agree with its manifest."""

    artifact: Artifact
    description: BundleDescription
    subject: Subject


def open_bundle(place: Location, trained: str | None, cache: Location) -> OpenedBundle:
    """`trained` is where the trained model lies; None = where the records say.

    Raises IntegrityError where a file is damaged, or what lies there is not the model that the bundle is of;
    ConfigError where nobody knows where that lies.
    """
    artifact = open_artifact(place, kind=BUNDLE_KIND)
    description = read_description(artifact.path)
    subject = find_subject(trained or _recorded(description), cache, dtype=description.dtype)
    if subject.digest != description.subject:
        raise IntegrityError(
            f"{place} is of another model",
            why=f"it is of {description.subject}, {subject.artifact.location} is {subject.digest}",
            fix="name the model that was exported with --subject",
        )
    return OpenedBundle(artifact, description, subject)


def _recorded(description: BundleDescription) -> str:
    records = open_records()
    try:
        known = records.find_artifact(description.subject)
    finally:
        records.close()
    if known is None or known.uri is None:
        raise ConfigError(
            f"the trained model {short_digest(description.subject)} is not at hand",
            why="the records do not say where it lies",
            fix="name its folder with --subject, or run `raytrain runs rebuild`",
        )
    return known.uri

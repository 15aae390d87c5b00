"""What a bundle is about: the digests that evidence must name to count for it, and the documents that it brings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.models.inference import TRAINING_RECORD
from raytrain.release.bundle.description import BUNDLE_KIND, FORMAT_FOLDERS, read_description
from raytrain.release.bundle.parity.section import ExportLimitsSection, LimitsSection
from raytrain.release.gate.policy import Document
from raytrain.release.gate.rules import Reading, Status
from raytrain.release.inventory.provenance import PROVENANCE_FILE
from raytrain.release.inventory.sbom import SBOM_FILE
from raytrain.release.scans.report import SCAN_REPORT, not_as_scanned
from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import Manifest

DOCUMENT_FILES: Mapping[Document, str] = {
    "export_check": "reports/export_check.json",
    "scan": SCAN_REPORT,
    "sbom": SBOM_FILE,
    "provenance": PROVENANCE_FILE,
}
_SLSA = "https://slsa.dev/provenance/"
_AGAIN = "export it again"
_LIMITS = {"export_check": "passed, by the policy's limits", "scan": "passed, for this one"}


@dataclass(frozen=True)
class About:
    """Digests. None where the bundle does not say."""

    bundle: str
    subject: str
    """Of the trained artifact."""
    base_model: str
    dataset: str | None
    recipe: str | None
    dtype: str
    """In which its weights are held."""


def about_bundle(artifact: Artifact) -> About:
    """Raises IntegrityError where the artifact is no bundle, or its manifest and its description disagree."""
    if artifact.kind != BUNDLE_KIND:
        raise IntegrityError(
            f"{artifact.location} cannot be promoted",
            why=f"its kind is {artifact.kind}, and a gate judges bundles",
            fix="raytrain export makes a bundle of an adapter or a model",
        )
    description = read_description(artifact.path)
    parents = artifact.manifest.parents
    told = {"subject": description.subject, "base_model": description.base_model.digest}
    for role, digest in told.items():
        if parents.get(role, digest) != digest or (role == "subject" and role not in parents):
            raise IntegrityError(
                f"{artifact.location} does not say clearly what it is of",
                why=f"{role}: bundle.json says {digest}, the manifest {parents.get(role)}",
                fix=_AGAIN,
            )
    return About(
        artifact.digest,
        description.subject,
        description.base_model.digest,
        parents.get("dataset"),
        _recipe(artifact),
        description.dtype,
    )


def _recipe(artifact: Artifact) -> str | None:
    for folder in ("", *(f"{one}/" for one in FORMAT_FOLDERS.values())):
        if f"{folder}{TRAINING_RECORD}" in artifact.manifest.files:
            found = read_json(artifact, f"{folder}{TRAINING_RECORD}").get("recipe")
            return None if found is None else str(found)
    return None


def read_documents(artifact: Artifact, about: About, limits: ExportLimitsSection) -> Iterator[Reading]:
    """Those that the bundle has. They are under its signature; nothing of what they say is believed about another.

    limits: of the policy, for what the export check has measured.
    """
    readers: Mapping[str, _Reader] = {**_READERS, "export_check": partial(_export_check, limits)}
    for thing, name in DOCUMENT_FILES.items():
        entry = artifact.manifest.files.get(name)
        if entry is None:
            continue
        try:
            status, value, why = readers[thing](read_json(artifact, name), about, artifact.manifest)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, IntegrityError) as error:
            status, value, why = (
                "failed",
                "cannot be read",
                f"{type(error).__name__}: {error}".splitlines()[0],
            )
        limit = _LIMITS.get(thing, "names this one")
        yield Reading(
            thing, f"sha256:{entry.sha256}", status, value, limit, why, f"{_AGAIN}: {name} is not as asked"
        )


Told = tuple[Status, str, str]
_Reader = Callable[[dict[str, Any], About, Manifest], Told]


def _scan(content: dict[str, Any], about: About, manifest: Manifest) -> Told:
    others = not_as_scanned(content, manifest)
    if others:
        return "failed", f"{len(others)} files besides", f"{others[0]} is not as it was scanned"
    return _judged(content, about, manifest)


def _export_check(
    limits: ExportLimitsSection, content: dict[str, Any], about: About, manifest: Manifest
) -> Told:
    """By the policy's own limits; those that the check was made with do not count."""
    told = _judged(content, about, manifest)
    if told[0] != "passed":
        return told
    if content["dtype"] != about.dtype:
        return "failed", str(content["dtype"]), f"the bundle's weights are held in {about.dtype}"
    far = list(_too_far(content, limits.limits(about.dtype)))
    if far or not content["formats"]:
        return "failed", "too far from the trained model", "; ".join(far[:3]) or "it names no format"
    return told


def _too_far(content: dict[str, Any], limits: LimitsSection) -> Iterator[str]:
    for form, found in content["formats"].items():
        for key in ("max_difference", "mean_difference", "max_kl"):
            value, allowed = float(found[key]), getattr(limits, key)
            if not value <= allowed:
                yield f"{key} of {form} is {value:g}, the policy allows {allowed:g}"
        num_parted = found["num_near_ties"]
        lead = float(content["limits"]["near_tie"]) if num_parted else 0.0
        if not lead <= limits.near_tie:
            yield (
                f"{num_parted} answers of {form} part, by a lead of at most {lead:g}, "
                f"the policy allows {limits.near_tie:g}"
            )


def _judged(content: dict[str, Any], about: About, _: Manifest) -> Told:
    if content["subject"] != about.subject:
        return "failed", "of another", f"it is about {content['subject']}, the bundle of {about.subject}"
    passed = content["passed"] is True
    return (
        "passed" if passed else "failed",
        "passed" if passed else "did not pass",
        "in the bundle, under its signature",
    )


def _sbom(content: dict[str, Any], about: About, _: Manifest) -> Told:
    """The component that is the model has the trained artifact's digest among its properties."""
    if content["bomFormat"] != "CycloneDX":
        return "failed", str(content["bomFormat"]), "it is no CycloneDX document"
    parts = [content.get("metadata", {}).get("component"), *content.get("components", [])]
    models = [one for one in parts if one and one["type"] == "machine-learning-model"]
    value = f"CycloneDX {content['specVersion']}, {len(content.get('components', []))} components"
    if any(_names(one, about.subject) for one in models):
        return "passed", value, "a model among them has the subject's digest"
    return "failed", value, f"none of its {len(models)} models has the digest {about.subject}"


def _provenance(content: dict[str, Any], about: About, manifest: Manifest) -> Told:
    """It is about every file of the bundle but itself and the scan, which is made last, and names what they were made
    from."""
    if not str(content["predicateType"]).startswith(_SLSA):
        return "failed", str(content["predicateType"]), "it is no SLSA provenance"
    value = str(content["predicateType"]).removeprefix("https://")
    told = {str(one["name"]): one["digest"]["sha256"] for one in content["subject"]}
    last = (DOCUMENT_FILES["provenance"], DOCUMENT_FILES["scan"])
    files = {name: entry.sha256 for name, entry in manifest.files.items() if name not in last}
    others = sorted(name for name in told.keys() | files.keys() if told.get(name) != files.get(name))
    if others:
        return "failed", value, f"{others[0]} is not the file that it is about"
    details = content["predicate"]["runDetails"]
    if not _names(details["byproducts"], about.subject):
        return "failed", value, f"nothing in it is {about.subject}, of which the bundle is"
    return "passed", value, "it is about every file, and names the subject"


def _names(value: object, digest: str) -> bool:
    """Whether a digest stands anywhere in a JSON value, with or without its prefix."""
    if isinstance(value, dict):
        return any(_names(one, digest) for one in value.values())
    if isinstance(value, list):
        return any(_names(one, digest) for one in value)
    return isinstance(value, str) and digest.removeprefix("sha256:") in value


_READERS: Mapping[str, _Reader] = {
    "scan": _scan,
    "sbom": _sbom,
    "provenance": _provenance,
}


def read_json(artifact: Artifact, name: str) -> dict[str, Any]:
    """A file of an artifact. Raises IntegrityError where it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((artifact.path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{artifact.path / name} cannot be read",
            why=str(error),
            fix="take another copy, or make it again",
        ) from error
    return found

"""How a bundle came to be: an in-toto statement with SLSA's provenance, version 1.

https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1. Only what the trained artifact's manifest tells of
time goes in, so that the same bundle of the same artifact has the same statement.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from raytrain.models.base_places import travelling_record
from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.subject import Subject
from raytrain.storage.manifest import MANIFEST_NAME, file_sha256

PROVENANCE_FILE = "provenance.intoto.json"

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:raytrain:build:train-and-export:v1"
BUILDER_ID = "urn:raytrain:builder:own-machine"
"""Whoever signs vouches for it: no service apart from him has run the build (SLSA build level 1)."""

_RECIPE = ("name", "model", "adapter", "data", "train")
"""Sections that decide what is trained; the others say where."""

Json = dict[str, Any]


def provenance_of(folder: Path, subject: Subject, description: BundleDescription) -> Json:
    """The statement over every file that now lies in a staged bundle."""
    manifest = subject.artifact.manifest
    told = manifest.provenance
    config: Json = told["config"] if isinstance(told.get("config"), dict) else {}
    metadata = {"invocationId": told.get("run_id"), "finishedOn": _utc(told.get("created_at"))}
    return {
        "_type": STATEMENT_TYPE,
        "subject": _files(folder),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "recipe": travelling_record(
                        {section: config[section] for section in _RECIPE if section in config},
                        str(subject.record["base_model"]),
                    ),
                    "formats": list(description.formats),
                },
                "internalParameters": {
                    section: value for section, value in config.items() if section == "scaling"
                },
                "resolvedDependencies": _materials(subject, description),
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER_ID,
                    "version": {"raytrain": importlib.metadata.version("raytrain")},
                },
                "metadata": {key: value for key, value in metadata.items() if value},
                "byproducts": [_artifact(f"trained {description.kind}", subject.digest)],
            },
        },
    }


def to_text(statement: Json) -> str:
    return json.dumps(statement, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _files(folder: Path) -> list[Json]:
    files = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())
    return [
        {"name": name, "digest": {"sha256": file_sha256(folder / name)}}
        for name in files
        if name not in (PROVENANCE_FILE, MANIFEST_NAME)
    ]


def _materials(subject: Subject, description: BundleDescription) -> list[Json]:
    manifest = subject.artifact.manifest
    base = description.base_model
    found = [
        {**_artifact("base_model", base.digest), "annotations": {"reference": base.reference}},
        *(_artifact(role, one) for role, one in sorted(manifest.parents.items()) if role != "base_model"),
    ]
    git = manifest.provenance.get("git") or {}
    if git.get("commit"):
        found.append(
            {
                "name": "sources",
                "digest": {"gitCommit": git["commit"]},
                "annotations": {"dirty": bool(git.get("dirty"))},
            }
        )
    packages = manifest.provenance.get("packages") or {}
    for name, version in sorted(packages.items()):
        kind = "generic" if name == "python" else "pypi"
        found.append({"name": name, "uri": f"pkg:{kind}/{name}@{version.replace('+', '%2B')}"})
    return found


def _artifact(name: str, digest: str) -> Json:
    """An artifact of raytrain's: the digest is over its kind, parents and files."""
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}


def _utc(time: Any) -> str | None:
    return time.replace("+00:00", "Z") if isinstance(time, str) else None

"""Puts both documents into a bundle that is being staged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.subject import Subject
from raytrain.release.inventory.background import Background
from raytrain.release.inventory.ml_bom import model_component, model_dependencies, other_components
from raytrain.release.inventory.packages import environment_of, read_requirements
from raytrain.release.inventory.provenance import PROVENANCE_FILE, provenance_of
from raytrain.release.inventory.provenance import to_text as statement_text
from raytrain.release.inventory.sbom import SBOM_FILE, assemble, package_ref, to_text, validate_sbom

REQUIREMENTS_FILE = "requirements.txt"


def write_inventory(
    folder: Path,
    subject: Subject,
    description: BundleDescription,
    *,
    background: Background | None = None,
    requirements: Sequence[str] | None = None,
) -> None:
    """Write `sbom.cdx.json` and then `provenance.intoto.json`, which covers what lies in `folder` by then.

    requirements: of what runs the bundle; by default those of its requirements.txt, or raytrain's where it has none.
    Raises ConfigError where one is not installed, IntegrityError where another version is, where an evaluation is
    of another model, or where the document is not valid.
    """
    known = background or Background()
    known.check(subject)
    if requirements is None:
        place = folder / REQUIREMENTS_FILE
        requirements = read_requirements(place) if place.is_file() else ["raytrain"]
    environment = environment_of(requirements)
    packages = [package_ref(one) for one in environment.roots]
    document = assemble(
        model_component(folder, subject, description, known),
        other_components(subject, description, known),
        model_dependencies(subject, description, packages),
        environment,
    )
    validate_sbom(document)
    (folder / SBOM_FILE).write_text(to_text(document), encoding="utf-8")
    statement = provenance_of(folder, subject, description, known)
    (folder / PROVENANCE_FILE).write_text(statement_text(statement), encoding="utf-8")

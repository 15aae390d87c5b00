"""Puts both documents into a bundle that is being staged, and the versions that the first lists as constraints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.lineage import Lineage
from raytrain.release.inventory.ml_bom import model_component, model_dependencies, other_components
from raytrain.release.inventory.packages import constraints_of, environment_of, read_requirements
from raytrain.release.inventory.provenance import PROVENANCE_FILE, provenance_of
from raytrain.release.inventory.provenance import to_text as statement_text
from raytrain.release.inventory.sbom import SBOM_FILE, assemble, package_ref, to_text, validate_sbom

REQUIREMENTS_FILE = "requirements.txt"
CONSTRAINTS_FILE = "constraints.txt"
SERVE_REQUIREMENTS_FILE, SERVE_CONSTRAINTS_FILE = "serve-requirements.txt", "serve-constraints.txt"
"""Of Ray Serve and all that it leads to, for who serves the bundle by that: the image does without."""


def write_inventory(
    folder: Path,
    description: BundleDescription,
    lineage: Lineage,
    *,
    requirements: Sequence[str] | None = None,
) -> None:
    """Write `sbom.cdx.json`, `constraints.txt` (and `serve-constraints.txt`), and then `provenance.intoto.json`, which
    covers what lies in `folder` by then.

    requirements: of what runs the bundle; by default those of its requirements.txt, or raytrain's where it has none.
    Raises ConfigError where one is not installed, IntegrityError where another version is, or where the document is not
    valid.
    """
    if requirements is None:
        place = folder / REQUIREMENTS_FILE
        requirements = read_requirements(place) if place.is_file() else ["raytrain"]
    environment = environment_of(requirements)
    packages = [package_ref(one) for one in environment.roots]
    document = assemble(
        model_component(folder, description, lineage),
        other_components(description, lineage),
        model_dependencies(lineage.subject, description, packages),
        environment,
    )
    validate_sbom(document)
    (folder / SBOM_FILE).write_text(to_text(document), encoding="utf-8")
    (folder / CONSTRAINTS_FILE).write_text(constraints_of(environment), encoding="utf-8")
    of_ray = folder / SERVE_REQUIREMENTS_FILE
    if of_ray.is_file():
        both = environment_of([*requirements, *read_requirements(of_ray)])
        text = constraints_of(both, of=f"{REQUIREMENTS_FILE} and {SERVE_REQUIREMENTS_FILE}")
        (folder / SERVE_CONSTRAINTS_FILE).write_text(text, encoding="utf-8")
    statement = provenance_of(folder, lineage.subject, description)
    (folder / PROVENANCE_FILE).write_text(statement_text(statement), encoding="utf-8")

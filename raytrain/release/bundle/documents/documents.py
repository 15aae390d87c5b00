"""All of a bundle's documents, written below its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.documents.card import render_card
from raytrain.release.bundle.documents.dockerfile import render_dockerfile
from raytrain.release.bundle.documents.licence import render_licence
from raytrain.release.bundle.documents.needs import needs_of
from raytrain.release.bundle.documents.serve_config import render_serve_config
from raytrain.release.bundle.lineage import Lineage
from raytrain.release.bundle.parity.check import ExportCheck
from raytrain.release.bundle.parity.fresh import LOADER

LOGS_FOLDER = "run"
"""Of what was written down while it was trained."""


def write_documents(
    bundle: Path, description: BundleDescription, lineage: Lineage, checked: ExportCheck
) -> None:
    """The same model and versions of packages give the same documents."""
    needs = needs_of(bundle, description, lineage.subject.base_folder)
    texts = {
        "README.md": render_card(description, lineage, checked, needs),
        "LICENSE": render_licence(description, lineage),
        "requirements.txt": needs.requirements(),
        "serve-requirements.txt": needs.serve_requirements(),
        "Dockerfile": render_dockerfile(description, needs),
        "serve.yaml": render_serve_config(description, needs),
    }
    for name, text in texts.items():
        (bundle / name).write_text(text, encoding="utf-8")
    if lineage.logs:
        (bundle / LOGS_FOLDER).mkdir()
    for name, text in lineage.logs.items():
        (bundle / LOGS_FOLDER / name).write_text(text, encoding="utf-8")
    shutil.copyfile(LOADER, bundle / LOADER.name)

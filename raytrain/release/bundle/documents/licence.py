"""LICENSE: what is known of the base model's and the rows' licences, and nothing that is not."""

from __future__ import annotations

from pathlib import Path

from raytrain.release.bundle.description import BundleDescription
from raytrain.release.bundle.lineage import Lineage

_TEXTS = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING", "NOTICE")


def render_licence(description: BundleDescription, lineage: Lineage) -> str:
    """The base model's own text follows where its folder holds one."""
    base = description.base_model
    lines = [
        "This bundle holds weights that were made from other people's work. Nobody has decided here under which",
        "licence it may be passed on: that follows from the licences below.",
        "",
        f"Base model {base.reference}: {base.licence or 'licence not stated'}",
    ]
    for name, licence in licences_of_rows(lineage):
        lines.append(f"Rows of {name}: {licence or 'licence not stated'}")
    if lineage.rows is None:
        lines.append("Rows: not known here")
    for text in texts_of(lineage.subject.base_folder):
        lines += ["", f"---- {text.name} of the base model ----", "", text.read_text("utf-8", "replace")]
    return "\n".join(lines).rstrip("\n") + "\n"


def licences_of_rows(lineage: Lineage) -> list[tuple[str, str | None]]:
    """Name of each source, and the licence that was stated for it."""
    sources = (lineage.rows or {}).get("sources", [])
    return [(str(one["name"]), one.get("licence")) for one in sources]


def texts_of(folder: Path) -> list[Path]:
    return [folder / name for name in _TEXTS if (folder / name).is_file()]

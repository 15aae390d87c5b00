"""A trained model becomes a bundle: written in every format that was asked for, checked, and only then there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError
from raytrain.release.bundle.description import BUNDLE_KIND, describe
from raytrain.release.bundle.documents.documents import write_documents
from raytrain.release.bundle.documents.needs import TRAINED_IN
from raytrain.release.bundle.formats.format import find_formats, write_format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.lineage import find_lineage
from raytrain.release.bundle.parity.check import ExportCheck, ask_trained, check_folder
from raytrain.release.bundle.parity.prompts import Prompt
from raytrain.release.bundle.parity.section import ExportSettings
from raytrain.release.bundle.subject import Subject
from raytrain.release.inventory.writing import write_inventory
from raytrain.release.scans.scan import scan
from raytrain.release.signing import SIGNATURE_SUFFIX
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, short_digest
from raytrain.storage.named_places import place_for_artifact
from raytrain.storage.provenance import collect_provenance


@dataclass(frozen=True)
class ExportRequest:
    """What is wanted of one trained model."""

    formats: Sequence[str]
    """Names, or several of them with commas; none = the usual one."""
    destination: Location
    prompts: Sequence[Prompt]
    notes: list[str]
    """On where the prompts are from."""
    evaluations: Sequence[Location]
    """Whose numbers stand in the model card."""
    settings: ExportSettings
    replace: bool = False


@dataclass(frozen=True)
class Exported:
    artifact: Artifact
    check: ExportCheck


def export(subject: Subject, wanted: ExportRequest, tell: Callable[[str], None]) -> Exported:
    """Write a bundle. Nothing stands at the destination unless every format is the model that was trained.

    Raises ConfigError where a format is not known or this model cannot have it, IntegrityError (exit code 5) where one
    does not pass, RefusedError where a scan finds what must not be handed on, StorageError where the place is full.
    """
    forms = find_formats(wanted.formats, subject)
    _check_destination(wanted.destination, wanted.replace)
    lineage = find_lineage(subject, wanted.evaluations)
    names = tuple(form.name for form in forms)
    section = wanted.settings.export_check
    with (
        ArtifactWriter(wanted.destination, kind=BUNDLE_KIND, parents=_parents(subject)) as writer,
        tempfile.TemporaryDirectory(prefix="raytrain-export-") as scratch,
    ):
        tell("loading the trained model")
        material = Material(subject, subject.model.load(), wanted.settings.torchserve)
        notes = [*wanted.notes, *_on_quantization(subject)]
        trained = ask_trained(material, wanted.prompts, notes, section, Path(scratch), tell)
        for form in forms:
            tell(f"writing {form.name}")
            write_format(form, material, writer.path)
        description = describe(subject, names)
        description.write(writer.path)
        checked = check_folder(writer.path, trained, tell)
        checked.write(writer.path)
        checked.raise_if_failed()
        tell("writing model card, inventory and provenance")
        write_documents(writer.path, description, lineage, checked)
        write_inventory(writer.path, description, lineage)
        told = wanted.settings.model_dump(mode="json", exclude={"storage"})  # places of this machine
        provenance = collect_provenance(config=told, formats=list(names))
        tell("scanning it for secrets, pickles and what nobody can read")
        scanned = scan(writer.path, subject=subject.digest, documents={MANIFEST_NAME: provenance})
        scanned.write(writer.path)
        scanned.raise_if_failed()
        return Exported(commit(writer, provenance, replace=wanted.replace), checked)


def commit(writer: ArtifactWriter, provenance: dict[str, Any], *, replace: bool) -> Artifact:
    """As the writer does. A signature that stands beside what is replaced is of something else by now, and goes."""
    manifest = writer.destination / MANIFEST_NAME
    before = manifest.read_bytes() if manifest.exists() else b""
    artifact = writer.commit(provenance, replace=replace)
    if manifest.read_bytes() != before:
        (writer.destination.parent / f"{writer.destination.name}{SIGNATURE_SUFFIX}").delete()
    return artifact


def default_destination(subject: Subject, settings: ExportSettings) -> Location:
    """Below storage, by the name of the recipe and the digest of what was trained."""
    config = subject.artifact.manifest.provenance.get("config") or {}
    name = f"{config.get('name') or 'model'}-{short_digest(subject.digest)}"
    return settings.storage.location / "bundles" / name


def _check_destination(place: Location, replace: bool) -> None:
    place_for_artifact(str(place))
    if (place / MANIFEST_NAME).exists() and not replace:
        raise ConfigError(
            f"{place} is there already",
            why="nothing is overwritten unasked",
            fix="name another folder with --out, or add --replace",
        )


def _on_quantization(subject: Subject) -> list[str]:
    how = TRAINED_IN.get(str(subject.record["adapter"].get("method")))
    if how is None:
        return []
    held = subject.model.section.dtype
    return [
        f"trained over a quantized base model ({how}); compared, and to be served, over it as it is, in {held}"
    ]


def _parents(subject: Subject) -> dict[str, str]:
    own = subject.artifact.manifest.parents
    return {**own, "subject": subject.digest}

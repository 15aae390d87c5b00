"""`raytrain registry export` and `import`: a version in one file, from one registry to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit
from raytrain.cli.recorded_runs import opened_records
from raytrain.cli.registry_place import PlaceOption, ReferenceArgument, registry_of, released_object
from raytrain.cli.written_files import ReplaceOption, check_outputs

if TYPE_CHECKING:
    from raytrain.release.keys import KeyRing
    from raytrain.release.registry.cited_evidence import Find

FileArgument = Annotated[Path, typer.Argument(metavar="FILE.tar", help="The file.")]


def export_version(
    reference: ReferenceArgument,
    file: FileArgument,
    evidence: Annotated[
        list[str] | None,
        typer.Option("--evidence", help="Where reports lie that its promotion cites, if they were moved."),
    ] = None,
    replace: ReplaceOption = False,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write a version to a file: bundle, signature, proof and its reports, journal, and the public key to look at."""
    from raytrain.release.registry.transfer import export_version as write

    check_outputs([file], replace=replace)
    registry, keys = registry_of(place), ring_of(ring)
    with _evidence_places(evidence or [], registry.find(reference).digest, keys) as find:
        done = write(registry, reference, file.absolute(), keys, find)
    signed, size = done.signed, file.stat().st_size
    told = {
        "reference": reference,
        "file": str(file),
        "size_bytes": size,
        "digest": signed.artifact.digest,
        "proof_left_out": done.left_out,
        "evidence": done.evidence,
        "evidence_missing": done.evidence_missing,
    }
    text = f"{file}: {reference}, {size / 1e6:,.1f} MB, signed by {signed.key.name} ({signed.key.short_id})"
    left = [f"left out, it does not verify: {one}" for one in done.left_out]
    missing = [f"does not come along: {one}" for one in done.evidence_missing]
    lines = "\n".join([f"{text}, {len(done.evidence)} reports", *left, *missing])
    emit(told, as_json, lambda console: console.print(lines, highlight=False, soft_wrap=True, markup=False))
    return 0


def import_version(
    file: FileArgument,
    why: Annotated[str, typer.Option(help="It stands in the journal.")] = "imported",
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Release what `export` has written, once its journal, digest and signature hold; aliases stay where they are."""
    from raytrain.release.registry.cited_evidence import arrived_folder
    from raytrain.release.registry.transfer import import_version as take

    name, found = take(registry_of(place), file.absolute(), ring_of(ring), why=why)
    imported = found.entry.details["imported"]
    folder = str(arrived_folder(found.digest)) if imported["evidence"] else None
    told = {
        "name": name,
        **released_object(found),
        "proof_left_out": imported["proof_left_out"],
        "evidence": {"folder": folder, "digests": imported["evidence"]},
    }
    lines = [f"{name}@{found.version}  {found.digest}"]
    lines += [f"{len(imported['evidence'])} reports: {folder}"] if folder else []
    lines += [f"left out: {one}" for one in imported["proof_left_out"]]
    text = "\n".join(lines)
    emit(told, as_json, lambda console: console.print(text, highlight=False, soft_wrap=True, markup=False))
    return 0


@contextmanager
def _evidence_places(named: list[str], bundle: str, ring: KeyRing) -> Iterator[Find]:
    """Those that somebody names, what came along with the bundle once, then what is known on this machine."""
    from raytrain.release.gate.evidence import Shelves, open_evidence
    from raytrain.release.registry.cited_evidence import arrived_folder
    from raytrain.storage.location import Location
    from raytrain.storage.manifest import MANIFEST_NAME, digest_hex
    from raytrain.storage.section import StorageSection

    given = {one.artifact.digest: one.artifact.location for one in open_evidence(named, ring)}
    with opened_records() as records:
        shelves = Shelves(StorageSection().location, records)

        def find(digest: str) -> Location | None:
            arrived = arrived_folder(bundle) / digest_hex(digest)
            if digest not in given and (arrived / MANIFEST_NAME).is_file():
                return Location(str(arrived))
            return given.get(digest) or shelves.place_of(digest)

        yield find

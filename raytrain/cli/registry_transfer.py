"""`raytrain registry export` and `import`: a version in one file, from one registry to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit
from raytrain.cli.outputs import ReplaceOption, check_outputs
from raytrain.cli.registry_place import PlaceOption, ReferenceArgument, registry_of, released_object

FileArgument = Annotated[Path, typer.Argument(metavar="FILE.tar", help="The file.")]


def export_version(
    reference: ReferenceArgument,
    file: FileArgument,
    replace: ReplaceOption = False,
    place: PlaceOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write a version to a file: bundle, signature, proof, journal, and the public key for information."""
    from raytrain.release.registry.transfer import export_version as write

    check_outputs([file], replace=replace)
    done = write(registry_of(place), reference, file.absolute(), ring_of(ring))
    signed, size = done.signed, file.stat().st_size
    told = {
        "reference": reference,
        "file": str(file),
        "size_bytes": size,
        "digest": signed.artifact.digest,
        "proof_left_out": done.left_out,
    }
    text = f"{file}: {reference}, {size / 1e6:,.1f} MB, signed by {signed.key.name} ({signed.key.short_id})"
    lines = "\n".join([text, *(f"left out, it does not verify: {one}" for one in done.left_out)])
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
    from raytrain.release.registry.transfer import import_version as take

    name, found = take(registry_of(place), file.absolute(), ring_of(ring), why=why)
    told = {"name": name, **released_object(found)}
    text = f"{name}@{found.version}  {found.digest}"
    emit(told, as_json, lambda console: console.print(text, highlight=False, soft_wrap=True))
    return 0

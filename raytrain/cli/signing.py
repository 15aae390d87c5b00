"""`raytrain sign` and `raytrain verify`: an artifact, and whose word stands for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit

if TYPE_CHECKING:
    from rich.console import Console

FolderArgument = Annotated[Path, typer.Argument(help="Folder of an artifact, on this disk.")]


def sign(
    folder: FolderArgument,
    key: Annotated[str, typer.Option(help="Name of the key.")] = "default",
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Sign an artifact: an adapter, a dataset, an evaluation, a report. The signature is written beside it.

    OpenSSF's own command line verifies it as well: model_signing verify key FOLDER --signature FOLDER.sig --public_key
    FILE.
    """
    from raytrain.release.signing import sign as sign_folder

    signing_key = ring_of(ring).signing_key(key)
    place = sign_folder(folder.absolute(), signing_key)
    told = {"signature": str(place), "key": signing_key.public.id, "name": signing_key.public.name}
    emit(told, as_json, lambda console: console.print(str(place), highlight=False, soft_wrap=True))
    return 0


def verify(
    folder: FolderArgument,
    signature: Annotated[
        Path | None, typer.Option(help="Where the signature is; by default beside the folder.")
    ] = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Whether an artifact is as a key signed it that counts here; exit code 5 if not."""
    from raytrain.release.signing import verify as verify_folder

    signed = verify_folder(folder.absolute(), ring_of(ring), signature)
    artifact, key = signed.artifact, signed.key
    told = {
        "verified": True,
        "kind": artifact.kind,
        "digest": artifact.digest,
        "num_files": len(artifact.manifest.files),
        "key": key.id,
        "name": key.name,
        "state": key.state,
    }

    def show(console: Console) -> None:
        console.print(
            f"{artifact.kind} of {len(artifact.manifest.files)} files, signed by {key.name} "
            f"({key.short_id}, {key.state})\ndigest {artifact.digest}",
            highlight=False,
            soft_wrap=True,
        )

    emit(told, as_json, show)
    return 0

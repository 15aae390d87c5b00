"""`raytrain sign` and `raytrain verify`: an artifact, and whose word stands for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.keys import RingOption, ring_of
from raytrain.cli.output import JsonOption, emit
from raytrain.errors import ConfigError
from raytrain.storage.named_places import place_of_artifact

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.release.run_archive import RunArchive
    from raytrain.storage.artifact import Artifact

FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="FOLDER|RUN", help="Folder of an artifact on this disk, or a run that has ended."),
]
TrustOption = Annotated[
    Path | None,
    typer.Option(
        "--trust-config", help="Keyless: sigstore services of your own, a JSON file; default the public ones."
    ),
]


def sign(
    folder: FolderArgument,
    key: Annotated[str | None, typer.Option(help="Name of the key; by default `default`.")] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign in instead, and have sigstore's public log witness it.")
    ] = False,
    trust_config: TrustOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Sign an artifact: an adapter, a dataset, an evaluation, a report. The signature is written beside it.

    Of a run all is put into one folder first, and signed together: log, checkpoints, result, and the reports about it.

    OpenSSF's own command line verifies it as well: model_signing verify key FOLDER --signature FOLDER.sig --public_key
    FILE.
    """
    if keyless and (key is not None or ring is not None):
        raise ConfigError(
            "a signature is either by a key or keyless",
            why="--keyless stands beside --key or --ring",
            fix="leave one of them out",
        )
    told: dict[str, Any]
    archive = _archive(folder)
    path = place_of_artifact(folder).path if archive is None else archive.artifact.path
    if keyless:
        from raytrain.release.keyless import sign_keyless

        place = sign_keyless(path, trust_config=trust_config)
        told = {"signature": str(place), "keyless": True}
    else:
        from raytrain.release.signing import sign as sign_folder

        signing_key = ring_of(ring).signing_key(key or "default")
        place = sign_folder(path, signing_key)
        told = {"signature": str(place), "key": signing_key.public.id, "name": signing_key.public.name}
    if archive is not None:
        told |= {"run": path.name, "folder": str(path), "num_files": len(archive.artifact.manifest.files)}
        told |= {"left_out": archive.left_out}
    left = [f"left out: {one}" for one in ([] if archive is None else archive.left_out)]
    text = "\n".join([str(place), *left])
    emit(told, as_json, lambda console: console.print(text, highlight=False, soft_wrap=True, markup=False))
    return 0


def _archive(folder: Path) -> RunArchive | None:
    """Of the run that is meant where no folder is."""
    from raytrain.cli.recorded_runs import opened_records
    from raytrain.release.run_archive import archive_run, archived

    if folder.exists():
        return None
    with opened_records() as records:
        run = archived(str(folder), records)
        return None if run is None else archive_run(run, records)


def _run_of(folder: Path) -> str | None:
    from raytrain.cli.recorded_runs import opened_records
    from raytrain.release.run_archive import archived

    if folder.exists():
        return None
    with opened_records() as records:
        run = archived(str(folder), records)
    return None if run is None else run.id


def _check_run(run_id: str, artifact: Artifact) -> None:
    from raytrain.cli.recorded_runs import opened_records
    from raytrain.release.run_archive import check_originals

    with opened_records() as records:
        check_originals(artifact, run_id, records)


def verify(
    folder: FolderArgument,
    signature: Annotated[
        Path | None, typer.Option(help="Where the signature is; by default beside the folder.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="Keyless: who must have signed, an address or the URI of a workflow.")
    ] = None,
    identity_provider: Annotated[
        str | None, typer.Option(help="Keyless: URL of the OpenID provider that confirmed it.")
    ] = None,
    trust_config: TrustOption = None,
    ring: RingOption = None,
    as_json: JsonOption = False,
) -> int:
    """Whether an artifact is as a key signed it that counts here, or as an identity did; exit code 5 if not.

    Of a run the signed copy is verified, and what still lies where the run left it is held against that.
    """
    if (identity is None) != (identity_provider is None):
        raise ConfigError(
            "an identity is a name and who confirmed it",
            why="--identity and --identity-provider go together",
            fix="give both, or neither to verify against keys",
        )
    from raytrain.release.run_archive import archive_place

    run_id = _run_of(folder)
    path = place_of_artifact(folder if run_id is None else archive_place(run_id)).path
    if identity is not None and identity_provider is not None:
        from raytrain.release.keyless import Identity, verify_keyless

        whose = Identity(identity, identity_provider)
        found = verify_keyless(path, whose, signature, trust_config=trust_config)
        if run_id is not None:
            _check_run(run_id, found.artifact)
        by = {"identity": identity, "identity_provider": identity_provider}
        return _emit_verified(found.artifact, f"{identity} ({identity_provider})", by, as_json)
    from raytrain.release.signing import verify as verify_folder

    signed = verify_folder(path, ring_of(ring), signature)
    if run_id is not None:
        _check_run(run_id, signed.artifact)
    key = signed.key
    by = {"key": key.id, "name": key.name, "state": key.state}
    return _emit_verified(signed.artifact, f"{key.name} ({key.short_id}, {key.state})", by, as_json)


def _emit_verified(artifact: Artifact, signer: str, by: dict[str, str], as_json: bool) -> int:
    told = {
        "verified": True,
        "kind": artifact.kind,
        "digest": artifact.digest,
        "num_files": len(artifact.manifest.files),
        **by,
    }

    def show(console: Console) -> None:
        from raytrain.evaluation.decision.quantity import counted

        console.print(
            f"{artifact.kind} of {counted(len(artifact.manifest.files), 'file')}, signed by {signer}\n"
            f"digest {artifact.digest}",
            highlight=False,
            soft_wrap=True,
        )

    emit(told, as_json, show)
    return 0

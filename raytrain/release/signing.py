"""Signatures of folders, in the form that OpenSSF's model-signing reads and writes.

A signature is a file beside the folder. It covers every file in it, `manifest.json` among them. Nothing is left out:
model-signing by itself passes over what git keeps.
"""

from __future__ import annotations

import base64
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.keys import KeyRing, PublicKey, SigningKey
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location, translated_errors, write_atomically
from raytrain.storage.manifest import file_sha256

SIGNATURE_SUFFIX = ".sig"


@dataclass(frozen=True)
class Signed:
    """A whole artifact, and whose signature says so."""

    artifact: Artifact
    key: PublicKey


def signature_place(folder: Path) -> Path:
    """Where a folder's signature stands: beside it."""
    return folder.with_name(folder.name + SIGNATURE_SUFFIX)


def sign(folder: Path, key: SigningKey) -> Path:
    """Sign an artifact on this disk, and return the place of its signature.

    Raises IntegrityError where its files do not agree with its manifest: nothing is signed that is not whole.
    """
    from model_signing import signing

    open_artifact(Location(str(folder)))
    config = signing.Config().set_hashing_config(all_files())
    config.use_elliptic_key_signer(private_key=key.path, password=key.password)
    place = signature_place(folder)
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch) / "signature"
        config.sign(folder, staged)
        content = staged.read_bytes()
    with translated_errors(Location(str(place)), "write"):
        write_atomically(place, content)
    return place


def verify(folder: Path, ring: KeyRing, signature: Path | None = None) -> Signed:
    """The artifact, where a key of the ring that was not revoked has signed it as it is.

    Raises RefusedError where there is no signature, or no key that counts; IntegrityError that names the file which was
    changed, added or taken away.
    """
    from model_signing import verifying

    place = signature or signature_place(folder)
    key = _key_of(place, ring)
    artifact = open_artifact(Location(str(folder)))
    config = verifying.Config().set_hashing_config(all_files())
    with tempfile.TemporaryDirectory() as scratch:
        public = Path(scratch) / "key.pem"
        public.write_text(key.pem)
        try:
            config.use_elliptic_key_verifier(public_key=public).verify(folder, place)
        except InvalidSignature as error:
            raise misfit(place, "it is not a signature by the key that it names") from error
        except (ValueError, KeyError, TypeError, IndexError, OSError, RecursionError) as error:
            raise misfit(place, differences_from(error, folder, place)) from error
    return Signed(artifact, key)


def may_be_replaced(signature: bytes | None, ring: KeyRing) -> bool:
    """Whether nobody loses by another signature in this one's place: there is none, nobody can have made it, or its key
    was revoked here. One by a key that this ring lacks may count for others."""
    try:
        material = json.loads(signature or b"")["verificationMaterial"]
        if "certificate" in material:
            return False
        hint = str(material["publicKey"]["hint"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return True
    return hint in {one.id for one in ring.known()}


def differences_from(error: Exception, folder: Path, place: Path) -> str:
    """Which files are not as they were signed; the error's own words where that is not what it is about."""
    try:
        payload = base64.b64decode(json.loads(place.read_bytes())["dsseEnvelope"]["payload"])
        signed = {one["name"]: one["digest"] for one in json.loads(payload)["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return str(error)[:300]
    files = [one for one in folder.rglob("*") if one.is_symlink() or one.is_file()]
    there = {one.relative_to(folder).as_posix(): one for one in files}
    different = [f"{name} is missing" for name in sorted(signed.keys() - there.keys())]
    for name, file in sorted(there.items()):
        if name not in signed or file.is_symlink():
            different.append(f"{name} is not signed")
        elif file_sha256(file) != signed[name]:
            different.append(f"{name} was signed with another content")
    return "; ".join(different[:5]) or str(error)[:300]


def all_files() -> Any:
    """How model-signing hashes a folder here: every file, also those that git keeps."""
    from model_signing import hashing

    return hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)


def _key_of(place: Path, ring: KeyRing) -> PublicKey:
    if not place.is_file():
        raise RefusedError(
            f"{place.name.removesuffix(SIGNATURE_SUFFIX)} is not signed",
            why=f"{place} is not there",
            fix="sign it, or take the signature along with it",
        )
    try:
        material = json.loads(place.read_bytes())["verificationMaterial"]
        if "certificate" in material:
            raise RefusedError(
                f"{place} is by no key",
                why="it is keyless: somebody has signed in to make it, and whom to believe has to be said",
                fix="raytrain verify FOLDER --identity NAME --identity-provider URL",
            )
        hint = str(material["publicKey"]["hint"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise misfit(place, f"it is no signature by a key: {error}") from error
    key = next((one for one in ring.known() if one.id == hint), None)
    if key is None:
        raise RefusedError(
            f"{place} is by a key that nobody here knows",
            why=f"{hint[:12]} is not in {ring.folder}",
            fix="if you know whose it is: raytrain keys trust NAME FILE",
        )
    if key.state == "revoked":
        raise RefusedError(
            f"{place} is by a key that was revoked",
            why=f"{key.name}'s {key.short_id}, {key.since}: {key.reason}",
            fix="do not use it; sign what is known to be good with another key",
        )
    return key


def misfit(place: Path, why: str) -> IntegrityError:
    """A signature is not one of what lies beside it."""
    return IntegrityError(
        f"{place} does not fit what it is said to sign",
        why=why[:500],
        fix="take another copy of both; do not use this one",
    )

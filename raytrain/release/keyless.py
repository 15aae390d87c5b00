"""Keyless signatures: by an identity that an OpenID provider has confirmed, through sigstore's services.

The signature has the place and the format of the others; it holds a certificate for minutes and an entry of a public
log instead of a key's name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import ConfigError, EndpointError, RefusedError
from raytrain.release.signing import all_files, differences_from, misfit, signature_place
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location, translated_errors, write_atomically

_OF_SERVICES = ("sigstore", "requests", "urllib3", "tuf", "id")
"""Packages that talk to services."""


@dataclass(frozen=True)
class Identity:
    """Whose signature counts."""

    name: str
    """As the certificate has it: an address, or the URI of a workflow."""
    provider: str
    """URL of the OpenID provider that confirmed it."""


@dataclass(frozen=True)
class SignedByIdentity:
    """A whole artifact, and whose signature says so."""

    artifact: Artifact
    identity: Identity


def sign_keyless(folder: Path, *, trust_config: Path | None = None) -> Path:
    """Sign an artifact as whoever the environment or a browser says, and return the place of the signature.

    trust_config: services of one's own instead of sigstore's public ones. Raises EndpointError where they cannot be
    reached, IntegrityError where the artifact is not whole.
    """
    from model_signing import signing

    open_artifact(Location(str(folder)))
    place = signature_place(folder)
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch) / "signature"
        with _services_told("signed", trust_config):
            config = signing.Config().set_hashing_config(all_files())
            config.use_sigstore_signer(use_ambient_credentials=True, trust_config=trust_config)
            config.sign(folder, staged)
        content = staged.read_bytes()
    with translated_errors(Location(str(place)), "write"):
        write_atomically(place, content)
    return place


def verify_keyless(
    folder: Path, identity: Identity, signature: Path | None = None, *, trust_config: Path | None = None
) -> SignedByIdentity:
    """The artifact, where this identity has signed it as it is.

    Raises RefusedError where there is no keyless signature, IntegrityError where it is another's or a file differs,
    EndpointError where sigstore's roots cannot be brought up to date.
    """
    from model_signing import verifying
    from sigstore.errors import Error

    place = signature or signature_place(folder)
    _check_is_keyless(place)
    artifact = open_artifact(Location(str(folder)))
    with _services_told("verified", trust_config):
        config = verifying.Config().set_hashing_config(all_files())
        config.use_sigstore_verifier(
            identity=identity.name, oidc_issuer=identity.provider, trust_config=trust_config
        )
    try:
        config.verify(folder, place)
    except Error as error:
        raise misfit(place, f"it is not by {identity.name} of {identity.provider}: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError, OSError, RecursionError) as error:
        raise misfit(place, differences_from(error, folder, place)) from error
    return SignedByIdentity(artifact, identity)


@contextmanager
def _services_told(done: str, trust_config: Path | None) -> Iterator[None]:
    """What sigstore raises, as whom it concerns."""
    from sigstore.oidc import IdentityError

    try:
        yield
    except IdentityError as error:
        raise ConfigError(
            "nobody is signed in",
            why=str(error)[:300],
            fix="sign in when the browser asks, or sign with a key",
        ) from error
    except Exception as error:
        # Its clients raise what has no common root, and trip over answers that they do not expect.
        is_misread = isinstance(error, (TypeError, KeyError, AttributeError))
        if is_misread or type(error).__module__.partition(".")[0] in _OF_SERVICES:
            raise EndpointError(
                f"nothing can be {done} without a key here: sigstore's services do not answer as they should",
                why=_deepest(error),
                fix="go where there is internet, or sign with a key, which needs none: raytrain keys generate",
            ) from error
        if trust_config is None or not isinstance(error, (ValueError, OSError)):
            raise
        raise ConfigError(
            f"{trust_config} is not a trust configuration of sigstore",
            why=f"{type(error).__name__}: {error}"[:300],
            fix="name a JSON file as `sigstore` takes it with --trust-config",
        ) from error


def _deepest(error: BaseException) -> str:
    """Which address could not be reached stands in what was raised first."""
    told = [f"{type(error).__name__}: {error}"]
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
        told.append(str(error))
    named = next((one for one in told if "host=" in one or "://" in one), told[0])
    return named[:300]


def _check_is_keyless(place: Path) -> None:
    if not place.is_file():
        raise RefusedError(
            f"{place} is not there",
            why="a keyless signature stands beside its folder",
            fix="take the signature along with the folder, or name its place with --signature",
        )
    try:
        material = json.loads(place.read_bytes())["verificationMaterial"]
        is_keyless = "certificate" in material or "x509CertificateChain" in material
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise misfit(place, f"it is no signature: {type(error).__name__}: {error}") from error
    if not is_keyless:
        raise RefusedError(
            f"{place} is not a keyless signature",
            why="it names a key, and no identity",
            fix="verify it against the keys that count here, without --identity",
        )

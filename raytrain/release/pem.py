"""Public keys as text."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from raytrain.errors import ConfigError

_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def loaded_public(pem: str) -> ec.EllipticCurvePublicKey:
    """Raises ConfigError where the text is no public key of a curve that models are signed with."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "this is no public key", why=str(error), fix="give the PEM file that `raytrain keys show` prints"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise ConfigError(
            "this key cannot be used for signatures of models",
            why=f"known are keys on the curves {', '.join(_CURVES)}",
            fix="ask for one of these: raytrain keys generate makes one",
        )
    return key


def public_pem(key: object) -> str:
    assert isinstance(key, ec.EllipticCurvePublicKey), "only such keys are made and loaded"
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def id_of(pem: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(pem.encode()).hexdigest()

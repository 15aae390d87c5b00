"""Keyless without internet: what cannot be reached is told, and what nobody has vouched for is refused.

No signature that counts can be made here. The roots that forgeries are held against are sigstore's own, as its package
brings them.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle, signed_bundle
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from raytrain.cli.main import run
from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.keyless import Identity, verify_keyless
from raytrain.release.keys import KeyRing
from raytrain.release.signing import signature_place, verify

ME = Identity("me@example.org", "https://accounts.google.com")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No way out, and nothing kept from before."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg"))


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """sigstore's public roots, as a file."""
    import sigstore

    store = next((Path(sigstore.__file__).parent / "_store").glob("*tuf-repo-cdn.sigstore.dev"))
    told = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": json.loads((store / "trusted_root.json").read_text()),
        "signingConfig": json.loads((store / "signing_config.v0.2.json").read_text()),
    }
    (tmp_path / "roots.json").write_text(json.dumps(told))
    return tmp_path / "roots.json"


def told_by(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = run([*map(str, arguments), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def certificate(name: str) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """In somebody's name, by nobody's authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sigstore")])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(minutes=5))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, made.public_bytes(serialization.Encoding.DER)


def forge(folder: Path) -> None:
    """What a key has signed, now with a certificate in my name and an entry that no log has."""
    place = signature_place(folder)
    found = json.loads(place.read_bytes())
    envelope = found["dsseEnvelope"]
    key, der = certificate(ME.name)
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    text = base64.b64encode(key.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()
    envelope["signatures"] = [{"sig": text, "keyid": ""}]
    zeros = base64.b64encode(bytes(32)).decode()
    entry = {
        "logIndex": "1",
        "logId": {"keyId": zeros},
        "kindVersion": {"kind": "dsse", "version": "0.0.1"},
        "integratedTime": str(int(datetime.now(UTC).timestamp())),
        "inclusionPromise": {"signedEntryTimestamp": zeros},
        "inclusionProof": {
            "logIndex": "1",
            "rootHash": zeros,
            "treeSize": "2",
            "hashes": [zeros],
            "checkpoint": {"envelope": "rekor.sigstore.dev - 1\n2\nAAAA\n\n— rekor.sigstore.dev AAAAAA==\n"},
        },
        "canonicalizedBody": base64.b64encode(b"{}").decode(),
    }
    found["verificationMaterial"] = {
        "certificate": {"rawBytes": base64.b64encode(der).decode()},
        "tlogEntries": [entry],
    }
    place.write_text(json.dumps(found))


def test_without_internet_nothing_is_signed_and_the_way_out_is_told(
    offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle(tmp_path / "bundle")
    code, told = told_by(capsys, "sign", folder, "--keyless")
    assert code == 4 and told["error"]["kind"] == "endpoint"
    assert "sigstore.dev" in told["error"]["why"] and "raytrain keys generate" in told["error"]["fix"]
    assert not signature_place(folder).exists()


def test_without_internet_nothing_counts_as_verified(
    offline: None, ring: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = signed_bundle(tmp_path / "bundle", ring)
    forge(folder)
    whose = ("--identity", ME.name, "--identity-provider", ME.provider)
    code, told = told_by(capsys, "verify", folder, *whose)
    assert code == 4 and "sigstore.dev" in told["error"]["why"]


def test_a_certificate_that_nobody_issued_is_refused(ring: KeyRing, roots: Path, tmp_path: Path) -> None:
    folder = signed_bundle(tmp_path / "bundle", ring)
    forge(folder)
    with pytest.raises(IntegrityError, match="does not fit") as caught:
        verify_keyless(folder, ME, trust_config=roots)
    assert ME.name in caught.value.why


def test_each_sort_of_signature_is_told_from_the_other(ring: KeyRing, roots: Path, tmp_path: Path) -> None:
    folder = signed_bundle(tmp_path / "bundle", ring)
    with pytest.raises(RefusedError, match="not a keyless signature"):
        verify_keyless(folder, ME, trust_config=roots)
    forge(folder)
    with pytest.raises(RefusedError, match="by no key") as caught:
        verify(folder, ring)
    assert "--identity" in caught.value.fix
    signature_place(folder).write_text("{}")
    with pytest.raises(IntegrityError, match="does not fit"):
        verify_keyless(folder, ME, trust_config=roots)
    signature_place(folder).unlink()
    with pytest.raises(RefusedError, match="is not there"):
        verify_keyless(folder, ME, trust_config=roots)


@pytest.mark.parametrize("cut", ["certificate", "tlogEntries", "rawBytes", "checkpoint", "payload"])
def test_a_signature_with_a_part_missing_is_refused(
    cut: str, ring: KeyRing, roots: Path, tmp_path: Path
) -> None:
    folder = signed_bundle(tmp_path / "bundle", ring)
    forge(folder)
    place = signature_place(folder)
    place.write_text(json.dumps(without(json.loads(place.read_text()), cut)))
    with pytest.raises((IntegrityError, RefusedError)):
        verify_keyless(folder, ME, trust_config=roots)


def without(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: without(inner, name) for key, inner in value.items() if key != name}
    return [without(one, name) for one in value] if isinstance(value, list) else value


def test_half_an_identity_and_two_ways_at_once_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert told_by(capsys, "verify", folder, "--identity", ME.name)[0] == 2
    assert told_by(capsys, "sign", folder, "--keyless", "--key", "default")[0] == 2
    (tmp_path / "broken.json").write_text("{}")
    code, told = told_by(capsys, "sign", folder, "--keyless", "--trust-config", tmp_path / "broken.json")
    assert code == 2 and "broken.json" in told["error"]["what"]

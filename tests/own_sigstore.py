"""sigstore's services in small, with keys of their own: an authority, a certificate log, a transparency log.

What they issue has the form of the public services', so that verification runs whole without internet.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import sigstore
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from raytrain.release.signing import signature_place

_SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SHA256 = ec.ECDSA(hashes.SHA256())
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
)
_USAGES += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


def public_roots() -> dict[str, Any]:
    """Those of the public services, as sigstore's package brings them."""
    store = next((Path(sigstore.__file__).parent / "_store").glob("*tuf-repo-cdn.sigstore.dev"))
    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": json.loads((store / "trusted_root.json").read_text()),
        "signingConfig": json.loads((store / "signing_config.v0.2.json").read_text()),
    }


class OwnSigstore:
    """Issues and witnesses for whoever asks."""

    def __init__(self) -> None:
        self._authority, self._certificates, self._log = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self._now = datetime.now(UTC).replace(microsecond=0)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own sigstore")])
        self._root = (
            self._builder(self._name, self._authority.public_key(), timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage("key_cert_sign"), critical=True)
            .sign(self._authority, hashes.SHA256())
        )

    def roots(self, address: str = "https://nowhere.invalid") -> dict[str, Any]:
        """A trust configuration that believes these services and no others, and asks them at `address`."""
        found = public_roots()
        for name in ("caUrls", "oidcUrls", "rekorTlogUrls"):
            found["signingConfig"][name][0]["url"] = address
        found["signingConfig"]["tsaUrls"] = []
        valid = {"start": (self._now - timedelta(days=1)).isoformat().replace("+00:00", "Z")}
        authority = {
            "subject": {"organization": "own", "commonName": "own sigstore"},
            "uri": "https://fulcio.example.org",
            "certChain": {"certificates": [{"rawBytes": _text(_der(self._root))}]},
            "validFor": valid,
        }
        found["trustedRoot"] |= {
            "certificateAuthorities": [authority],
            "ctlogs": [_log(self._certificates, "https://ct.example.org", valid)],
            "tlogs": [_log(self._log, "https://log.example.org", valid)],
            "timestampAuthorities": [],
        }
        return found

    def sign_again(self, folder: Path, name: str, provider: str) -> None:
        """Put a keyless signature in the place of one by a key, over the same files."""
        place = signature_place(folder)
        found = json.loads(place.read_bytes())
        envelope = found["dsseEnvelope"]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(key.public_key(), name, provider)
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = _text(key.sign(signed, _SHA256))
        envelope["signatures"] = [{"sig": signature, "keyid": ""}]
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        found["verificationMaterial"] = {
            "certificate": {"rawBytes": _text(_der(certificate))},
            "tlogEntries": [self._entry(payload, signature, pem)],
        }
        place.write_text(json.dumps(found))

    def issue(self, request: dict[str, Any], token: str) -> dict[str, Any]:
        """As the authority answers: a certificate for whom the token names."""
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        asked = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        key = asked.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        chain = (self._certificate(key, claims["sub"], claims["iss"]), self._root)
        pems = [one.public_bytes(serialization.Encoding.PEM).decode() for one in chain]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}}

    def witness(self, request: dict[str, Any]) -> dict[str, Any]:
        """As the log answers, version 1 of its interface."""
        proposed = request["spec"]["proposedContent"]
        envelope = json.loads(proposed["envelope"])
        pem = base64.b64decode(proposed["verifiers"][0])
        entry = self._entry(base64.b64decode(envelope["payload"]), envelope["signatures"][0]["sig"], pem)
        proof = entry["inclusionProof"]
        told = {
            "logIndex": 0,
            "rootHash": base64.b64decode(proof["rootHash"]).hex(),
            "treeSize": 1,
            "hashes": [],
            "checkpoint": proof["checkpoint"]["envelope"],
        }
        signed = entry["inclusionPromise"]["signedEntryTimestamp"]
        found = {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry["integratedTime"]),
            "logID": _id(self._log).hex(),
            "logIndex": 0,
            "verification": {"inclusionProof": told, "signedEntryTimestamp": signed},
        }
        return {"1" * 64: found}

    def _certificate(self, key: ec.EllipticCurvePublicKey, name: str, provider: str) -> x509.Certificate:
        san = x509.SubjectAlternativeName([x509.RFC822Name(name)])
        builder = (
            self._builder(x509.Name([]), key, timedelta(minutes=10))
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(san, critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, provider.encode()), critical=False)
        )
        unwitnessed = builder.sign(self._authority, hashes.SHA256())
        witnessed = x509.UnrecognizedExtension(_SCT_LIST, self._timestamp(unwitnessed.tbs_certificate_bytes))
        return builder.add_extension(witnessed, critical=False).sign(self._authority, hashes.SHA256())

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, valid_for: timedelta
    ) -> x509.CertificateBuilder:
        authority = self._authority.public_key()
        return (
            x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
            .not_valid_before(self._now - timedelta(minutes=5))
            .not_valid_after(self._now + valid_for)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
        )

    def _timestamp(self, unwitnessed: bytes) -> bytes:
        """A signed certificate timestamp (RFC 6962) over a certificate that does not have it yet."""
        milliseconds = int(self._now.timestamp() * 1000)
        issuer = _id(self._authority)
        length = struct.pack("!I", len(unwitnessed))[1:]
        told = struct.pack("!BBQH", 0, 0, milliseconds, 1) + issuer + length + unwitnessed + b"\0\0"
        signature = self._certificates.sign(told, _SHA256)
        entry = struct.pack("!B32sQH", 0, _id(self._certificates), milliseconds, 0) + b"\x04\x03"
        entry += struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!HH", len(entry) + 2, len(entry)) + entry
        return b"\x04" + (b"\x81" if len(listed) > 127 else b"") + bytes([len(listed)]) + listed

    def _entry(self, payload: bytes, signature: str, pem: bytes) -> dict[str, Any]:
        """The log's only one."""
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": signature, "verifier": _text(pem)}],
        }
        body = _canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        root = hashlib.sha256(b"\0" + body).digest()
        seconds, log_id = int(self._now.timestamp()), _id(self._log)
        promised = {"body": _text(body), "integratedTime": seconds, "logID": log_id.hex(), "logIndex": 0}
        note = f"log.example.org - 1\n1\n{_text(root)}\n"
        witnessed = _text(log_id[:4] + self._log.sign(note.encode(), _SHA256))
        return {
            "logIndex": "0",
            "logId": {"keyId": _text(log_id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {
                "signedEntryTimestamp": _text(self._log.sign(_canonical(promised), _SHA256))
            },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _text(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n— log.example.org {witnessed}\n"},
            },
            "canonicalizedBody": _text(body),
        }


@contextmanager
def served(services: OwnSigstore, name: str, provider: str) -> Iterator[str]:
    """Over HTTP, as long as the block lasts: who asks for a token is signed in as `name`. Yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            here = f"http://{self.headers['Host']}"
            if self.path.endswith("/openid-configuration"):
                self._tell({"authorization_endpoint": f"{here}/auth", "token_endpoint": f"{here}/token"})
            else:
                self._tell({"value": _token(name, provider)})

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("/signingCert"):
                self._tell(services.issue(content, self.headers["Authorization"].removeprefix("Bearer ")))
            else:
                self._tell(services.witness(content))

        def _tell(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _token(name: str, provider: str) -> str:
    """A JSON web token that nobody has signed: the authority here believes everyone."""
    now = int(datetime.now(UTC).timestamp())
    claims = {"aud": "sigstore", "iss": provider, "sub": name, "email": name, "iat": now, "exp": now + 600}
    parts = (json.dumps(one).encode() for one in ({"alg": "ES256", "typ": "JWT"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in parts), "AAAA"])


def _usage(name: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{one: one == name for one in _USAGES})


def _log(key: ec.EllipticCurvePrivateKey, url: str, valid: dict[str, str]) -> dict[str, Any]:
    public = {"rawBytes": _text(_spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": public,
        "logId": {"keyId": _text(_id(key))},
    }


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

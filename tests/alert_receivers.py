"""Who alerts are sent to in tests: an HTTP server that can be told to misbehave, a mail server, certificates."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from raytrain.monitoring.alerts.alert import Alert

Reply = tuple[int, str, dict[str, str]]
"""Status, text and headers."""
SECRET_PATH = "/services/T0AAAA/B0BBBB/notasecretofanybody"


def an_alert(**values: Any) -> Alert:
    plain = {"kind": "run_failed", "subject": "sums-1", "severity": "critical", "title": "train sums failed",
             "text": "the loss is no number", "time": 1_000.0}  # fmt: skip
    return Alert(**{**plain, **values})


@dataclass
class Hook:
    """What came in, and where."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    reply: Callable[[int], Reply] = lambda _: (200, "ok", {})
    """By the number of the request, from 1."""

    @property
    def ids(self) -> list[str]:
        return [one["id"] for one in self.bodies]


@contextmanager
def hook(certificate: Path | None = None, port: int = 0) -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            found.headers.append(dict(self.headers))
            status, text, headers = found.reply(len(found.bodies))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    found = Hook(f"{scheme}://127.0.0.1:{server.server_address[1]}{SECRET_PATH}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def talker(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that does to each connection what it is told, and then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        talk(connection)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@dataclass
class MailRoom:
    """Keeps mails, or refuses them with what it is told to."""

    host: str = "127.0.0.1"
    port: int = 0
    mails: list[Any] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    """Addresses, and how each is refused; `DATA` refuses the mail itself."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if "DATA" in self.refuse:
            return self.refuse["DATA"]
        self.mails.append(envelope)
        return "250 Message accepted"


@contextmanager
def mail_room(
    certificate: Path | None = None, *, is_tls_first: bool = False, login: tuple[str, str] | None = None
) -> Iterator[MailRoom]:
    """With a certificate it offers STARTTLS and asks for it, or speaks TLS from the first byte."""

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == login, handled=False)

    room, options = MailRoom(), dict[str, Any]()
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        options = {} if is_tls_first else {"tls_context": context, "require_starttls": True}
    if login is not None:
        options |= {
            "authenticator": authenticate,
            "auth_required": True,
            "auth_require_tls": not is_tls_first,
        }
    ssl_context = context if is_tls_first else None
    controller = Controller(room, hostname="127.0.0.1", port=free_port(), ssl_context=ssl_context, **options)
    controller.start()
    room.port = controller.port
    try:
        yield room
    finally:
        controller.stop()


def write_certificate(folder: Path, *, host: str = "localhost", is_over: bool = False) -> Path:
    """A file with a key and a certificate of its own for 127.0.0.1 and `host`, which is also what it is checked by."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=tests")
    now = datetime.now(UTC) - timedelta(days=20 if is_over else 1)
    names = [x509.DNSName(host)] + ([x509.IPAddress(ip_address("127.0.0.1"))] if host == "localhost" else [])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    place = folder / f"{host}{'-over' if is_over else ''}.pem"
    place.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return place

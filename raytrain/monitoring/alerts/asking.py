"""One HTTP request, which ends whatever the server does, and whose failures are told without the URL: it may be a
secret, and is in the words of every library."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests

WHOLE_S = 30.0
"""Longest conversation with a server, whatever it does in it."""
ANSWER_S = 10.0
"""Longest silence of a server."""
_CONNECT_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """`unreached`: why there is none; then the rest means nothing."""

    unreached: str | None = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    """Its beginning."""


def ask(
    url: str,
    headers: Mapping[str, str],
    *,
    body: bytes | None = None,
    ca_file: Path | None = None,
    most_bytes: int = 1024,
) -> Answer:
    """With a body it is posted. Never raises for what the server, the network or the certificates do."""
    late = Answer(f"{urlsplit(url).hostname} was not done in {WHOLE_S:.0f} s")
    return in_time(lambda: _asked(url, headers, body, ca_file, most_bytes), late)


def in_time(call: Callable[[], T], late: T) -> T:
    """What `call` gives, or `late` where it takes longer than WHOLE_S. A server that sends a byte now and then passes
    every limit on its silence; such a call is left to end by itself."""
    found: list[T] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:  # noqa: BLE001 - it is raised below, in the thread that asked
            raised.append(error)

    thread = threading.Thread(target=run, name="raytrain-alert", daemon=True)
    thread.start()
    thread.join(WHOLE_S)
    if raised:
        raise raised[0]
    return found[0] if found else late


def _asked(
    url: str, headers: Mapping[str, str], body: bytes | None, ca_file: Path | None, most_bytes: int
) -> Answer:
    import requests

    try:
        with requests.request(
            "GET" if body is None else "POST",
            url,
            data=body,
            headers={"User-Agent": "raytrain", **headers},
            timeout=(_CONNECT_S, ANSWER_S),
            verify=True if ca_file is None else str(ca_file.expanduser()),
            allow_redirects=False,  # whoever is named gets it, and nobody else
            auth=_as_it_is,
            stream=True,
        ) as response:
            told = {name.lower(): value for name, value in response.headers.items()}
            return Answer(None, response.status_code, told, _beginning(response, most_bytes))
    except requests.RequestException as error:
        return Answer(_unreached(urlsplit(url).hostname or "it", error))
    except OSError as error:  # the file of certificates is not there, or is none
        return Answer(f"the certificates cannot be read: {error.strerror or ca_file}")


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Without this a password for the host is looked for in ~/.netrc."""
    return request


def _beginning(response: requests.Response, most_bytes: int) -> bytes:
    content = b""
    try:
        for piece in response.iter_content(4096):
            content += piece
            if len(content) >= most_bytes:
                break
    except Exception:  # noqa: BLE001 - of a body that breaks off or is packed wrongly its beginning is all there is
        return content[:most_bytes]
    return content[:most_bytes]


def _unreached(host: str, error: requests.RequestException) -> str:
    import requests

    causes = list(_causes(error))
    unsafe = next((one for one in causes if isinstance(one, ssl.SSLError)), None)
    if unsafe is not None or isinstance(error, requests.exceptions.SSLError):
        return f"no safe connection to {host}: {told_of_tls(unsafe)}"
    if isinstance(error, requests.exceptions.Timeout):
        return f"{host} did not answer in time"
    told = next((one.strerror for one in causes if isinstance(one, OSError) and one.strerror), None)
    if told is not None:
        return f"{host} cannot be reached: {told}"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"{host} cannot be reached, or does not speak HTTP"
    return f"{host} cannot be asked: {type(error).__name__}"


def told_of_tls(error: ssl.SSLError | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold ({error.verify_message})"
    return "its certificate does not hold" if error is None else f"{error.reason or 'TLS'}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """It and what it was made from, as far as anybody says."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
            yield one

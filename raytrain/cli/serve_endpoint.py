"""How commands ask a service over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer

from raytrain.errors import ConfigError, EndpointError, NotRegisteredError, PlatformError, RefusedError

UrlOption = Annotated[str, typer.Option("--url", help="Where it is served.")]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="RAYTRAIN_API_KEY", help="An operator's key.")
]
DEFAULT_URL = "http://127.0.0.1:8000"
LOAD = "/operate/load"
LOAD_TIMEOUT_S = 660.0
"""The service itself gives up before."""
_TIMEOUT_S = 10.0
_KINDS: dict[str, type[PlatformError]] = {
    "model_not_found": NotRegisteredError,
    "malformed_reference": ConfigError,
    "model_refused": RefusedError,
    "in_production": RefusedError,
}


def ask(
    url: str,
    path: str,
    api_key: str | None,
    body: dict[str, Any] | None = None,
    *,
    timeout_s: float = _TIMEOUT_S,
) -> tuple[int, dict[str, Any]]:
    """Status and content; with a body it is posted.

    Raises EndpointError where nobody answers, or not as raytrain does; NotRegisteredError where a version is not there,
    ConfigError where it is none, RefusedError where one may not be served or has to stay.
    """
    request = urllib.request.Request(url.rstrip("/") + path)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("content-type", "application/json")
    if api_key:
        request.add_header("authorization", f"Bearer {api_key}")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return int(answer.status), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        content = _content_of(error)
        if "is_ready" in content:
            return error.code, content
        raise _refusal(url, path, error, content) from error
    except (OSError, ValueError) as error:
        raise EndpointError(
            f"nobody answers at {url}",
            why=str(error),
            fix="start it with `raytrain serve start`, or give --url",
        ) from error


def _content_of(error: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        content = json.loads(error.read())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _refusal(url: str, path: str, error: urllib.error.HTTPError, content: dict[str, Any]) -> PlatformError:
    told = content.get("error", {})
    why, kind = str(told.get("message", error.reason)), _KINDS.get(str(told.get("code")))
    if kind is not None and path.startswith("/operate/"):
        return kind(
            f"{url} does not do that", why=why, fix="do what it says, then run the same command again"
        )
    fix = "give an operator's key with --api-key" if error.code in (401, 403) else "look at its log"
    return EndpointError(f"{url}{path} refuses with {error.code}", why=why, fix=fix)

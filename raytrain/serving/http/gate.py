"""What every request passes: it gets an id, shows its key, is counted, and leaves a line in the log."""

from __future__ import annotations

import logging
import re
import traceback
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from raytrain.serving.http.access_log import line_of, open_access_log
from raytrain.serving.http.errors import ApiError, ClientGone, internal_error
from raytrain.serving.http.limits import Doorkeeper
from raytrain.serving.http.metrics import Metrics
from raytrain.serving.http.operate import OPERATE
from raytrain.serving.http.record import UNMATCHED, Record, request_id_of
from raytrain.serving.http.section import HttpSection, is_loopback

_log = logging.getLogger(__name__)
_OPEN = frozenset({"/", "/health", "/ready", "/version", "/openapi.json"})
"""Asked by probes and by those who have no key yet; they tell no more than that, and the page at / nothing at all."""
_COUNTED = "/v1/"
_HOST = re.compile(r"(?P<name>\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]+)?")
_CLIENT_GONE = 499
"""Stands in log and metrics alone: nobody is there to be told."""


class Gate:
    """ASGI, outside of all routes and inside of nothing but CORS."""

    def __init__(
        self, app: ASGIApp, section: HttpSection, keeper: Doorkeeper, metrics: Metrics, *, tells_id: bool
    ) -> None:
        """tells_id: in a header, where nobody before it does."""
        self._tells_id = tells_id
        self._app, self._keeper, self._metrics = app, keeper, metrics
        self._is_metrics_open, self._is_insecure = section.open_metrics, section.insecure
        self._access_log = open_access_log() if section.access_log else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope["raytrain.record"] = Record(_id_of(scope), scope["method"])

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                own = [(b"x-request-id", record.id.encode())] if self._tells_id else []
                message["headers"] = [*message["headers"], *own, (b"x-content-type-options", b"nosniff")]
            await send(message)

        self._metrics.began()
        try:
            await self._pass(scope, receive, sending, record)
        except ClientGone:
            record.status, record.error = _CLIENT_GONE, "client_gone"
        except Exception as error:  # noqa: BLE001 - no client is told what it was, and no log what was asked
            _log.error("request %s failed: %s\n%s", record.id, type(error).__name__, _places(error))
            fault = internal_error(record.id)
            record.error = fault.code
            if not record.status:
                await fault.response()(scope, receive, sending)
        finally:
            record.route = _route_of(scope)
            self._metrics.ended(record)
            if self._access_log is not None:
                self._access_log.info(line_of(record))

    async def _pass(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        path = scope["path"]
        connection = HTTPConnection(scope)
        try:
            if self._is_insecure:
                _check_host(connection.headers.get("host", ""))
            if path not in _OPEN or "authorization" in connection.headers:
                self._admit(path, connection, record)
        except ApiError as error:
            record.error = error.code
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, path: str, connection: HTTPConnection, record: Record) -> None:
        if path == "/metrics" and self._is_metrics_open:
            return
        try:
            record.key = self._keeper.admit(connection.headers.get("authorization"))
        except ApiError:
            if path in _OPEN:
                return
            raise
        is_for_operators = path == "/metrics" or path.startswith(OPERATE)
        if is_for_operators and record.key is not None and not record.key.is_operator:
            raise ApiError(403, "this is for an operator's key", code="not_an_operator")
        if path.startswith(_COUNTED):
            self._keeper.count(record.key)


def _check_host(host: str) -> None:
    """Without keys, a web page whose name was made to lead to this machine could ask as if it were its own server."""
    named = _HOST.fullmatch(host)
    name = "" if named is None else named["name"]
    if not is_loopback(name.strip("[]")):
        raise ApiError(
            403, "without API keys only this machine is answered, by its own name", code="wrong_host"
        )


def _id_of(scope: Scope) -> str:
    """A new one where the client has none."""
    asked = HTTPConnection(scope).headers.get("x-request-id", "")
    return request_id_of(asked) if asked else f"req-{uuid.uuid4().hex}"


def _route_of(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", UNMATCHED))


def _places(error: Exception) -> str:
    """Where it was raised, without its message: that may hold a prompt."""
    return "".join(traceback.format_tb(error.__traceback__))

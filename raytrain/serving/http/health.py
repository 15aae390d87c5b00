"""For probes and operators: whether this process lives, whether it can answer, what it is, and its numbers."""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import version
from typing import Literal, NotRequired

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from raytrain.serving.backend import Backend, Readiness, TrialState
from raytrain.serving.http.metrics import Metrics
from raytrain.serving.http.record import record_of
from raytrain.serving.http.section import HttpSection

_log = logging.getLogger(__name__)
_READINESS_S = 5.0
"""A backend that says nothing for so long is not ready."""


class HealthAnswer(TypedDict):
    status: Literal["ok"]


class TrialAnswer(TypedDict):
    name: str
    candidate: str
    mode: str
    share: float
    standing: str
    why: str


class ReadyAnswer(TypedDict):
    """base and what follows is told to operators."""

    is_ready: bool
    base: NotRequired[str]
    production: NotRequired[dict[str, str]]
    problems: NotRequired[list[str]]
    trials: NotRequired[list[TrialAnswer]]


class VersionAnswer(TypedDict):
    raytrain: str


def health_routes(backend: Backend, section: HttpSection, metrics: Metrics) -> APIRouter:
    """/health, /ready, /version and /metrics."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/health", response_model=None, responses={200: {"model": HealthAnswer}})
    async def health() -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/ready", response_model=None, responses={200: {"model": ReadyAnswer}, 503: {"model": ReadyAnswer}}
    )
    async def ready(request: Request) -> Response:
        """Whether the base model is loaded and every production adapter can answer."""
        found = await _readiness(backend)
        told: ReadyAnswer = {"is_ready": found is not None and found.is_ready}
        key = record_of(request).key
        if section.insecure or section.open_metrics or (key is not None and key.is_operator):
            told |= _whole(found)
        return JSONResponse(told, 200 if told["is_ready"] else 503)

    @routes.get("/version", response_model=None, responses={200: {"model": VersionAnswer}})
    async def tell_version() -> Response:
        """What answers here."""
        return JSONResponse({"raytrain": version("raytrain")})

    @routes.get(
        "/metrics",
        response_model=None,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def tell_metrics() -> Response:
        """Numbers for Prometheus."""
        page = metrics.page(await _readiness(backend))
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


async def _readiness(backend: Backend) -> Readiness | None:
    try:
        async with asyncio.timeout(_READINESS_S):
            return await backend.readiness()
    except Exception as error:  # noqa: BLE001 - whatever keeps it from telling keeps it from answering
        _log.error("readiness cannot be told: %s", type(error).__name__)
        return None


def _whole(found: Readiness | None) -> ReadyAnswer:
    if found is None:
        return {"is_ready": False, "problems": ["whoever answers does not tell whether it can"]}
    return {
        "is_ready": found.is_ready,
        "base": found.base,
        "production": found.production,
        "problems": list(found.problems),
        "trials": [_trial(one) for one in found.trials],
    }


def _trial(one: TrialState) -> TrialAnswer:
    return {
        "name": one.name,
        "candidate": one.candidate,
        "mode": one.mode,
        "share": one.share,
        "standing": one.standing,
        "why": one.why,
    }

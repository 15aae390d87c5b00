"""What an operator's key may do to a service that runs: versions loaded and unloaded, drained and taken up again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from raytrain.errors import (
    ConfigError,
    IntegrityError,
    NotRegisteredError,
    PlatformError,
    RefusedError,
    StorageError,
)
from raytrain.serving.backend import ReplicaLost
from raytrain.serving.http.asking import is_model_name
from raytrain.serving.http.bodies import Body
from raytrain.serving.http.errors import ApiError
from raytrain.serving.http.reading import read_body
from raytrain.serving.http.record import record_of
from raytrain.serving.http.section import HttpSection
from raytrain.serving.operations.protocol import InProduction, Loaded, Operations, ReplicaState, Target

OPERATE = "/operate/"


class VersionBody(Body):
    """Which version."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    """NAME@VERSION, or NAME@ALIAS for the version that it names now."""


class LoadBody(VersionBody):
    """Which version, and for how long."""

    keep: bool = True
    """Until it is unloaded; else until others need the room, as one that somebody has asked for."""


VersionT = TypeVar("VersionT", bound=VersionBody)


class DrainBody(Body):
    """Whether new requests are taken."""

    is_draining: bool


class LoadedAtReplica(TypedDict):
    replica: str
    was_loaded: bool
    verify_s: float
    read_s: float
    put_s: float


class LoadAnswer(TypedDict):
    model: str
    digest: str
    replicas: list[LoadedAtReplica]


class UnloadedAtReplica(TypedDict):
    replica: str
    was_loaded: bool
    is_in_use: bool


class UnloadAnswer(TypedDict):
    model: str
    digest: str
    replicas: list[UnloadedAtReplica]


class StandingOfReplica(TypedDict):
    replica: str
    is_draining: bool
    answering: int
    kept: list[str]


class StandingAnswer(TypedDict):
    is_draining: bool
    """All of them take no new requests."""
    answering: int
    """Requests under way at all of them."""
    replicas: list[StandingOfReplica]


def operate_routes(operations: Operations, section: HttpSection) -> APIRouter:
    """For operators' keys; the gate sees to that."""
    routes = APIRouter(tags=["operation"], prefix=OPERATE.rstrip("/"))

    @routes.post("/load", response_model=None, **_described(LoadBody, LoadAnswer))
    async def load(request: Request) -> Response:
        """Lets a version answer on every replica, before anybody asks for it, and keeps it there."""
        body = await _body_of(request, section, LoadBody)
        async with _refusals():
            target, found = await operations.load(body.model, keep=body.keep)
        return JSONResponse(_told(target, [_without_fault(one) for one in found]))

    @routes.post("/unload", response_model=None, **_described(VersionBody, UnloadAnswer))
    async def unload(request: Request) -> Response:
        """Keeps a version no longer."""
        body = await _body_of(request, section, VersionBody)
        async with _refusals():
            target, found = await operations.unload(body.model)
        return JSONResponse(_told(target, [asdict(one) for one in found]))

    @routes.post("/drain", response_model=None, **_described(DrainBody, StandingAnswer))
    async def drain(request: Request) -> Response:
        """Takes no new requests, or takes them again. Those under way end."""
        body = await read_body(request, DrainBody, section)
        async with _refusals():
            return JSONResponse(_all(await operations.drain(is_on=body.is_draining)))

    @routes.get("/standing", response_model=None, responses={200: {"model": StandingAnswer}})
    async def standing() -> Response:
        """What is under way, and whether more is taken."""
        async with _refusals():
            return JSONResponse(_all(await operations.standing()))

    return routes


def _described(body: type[Body], answer: Any) -> dict[str, Any]:
    """Bodies are read by hand; what they are is told here."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": {200: {"model": answer}},
    }


async def _body_of(request: Request, section: HttpSection, form: type[VersionT]) -> VersionT:
    body = await read_body(request, form, section)
    model = body.model
    if not is_model_name(model):
        raise ApiError(400, "`model` takes NAME@VERSION or NAME@ALIAS", code="invalid_value", param="model")
    record = record_of(request)
    record.model = model
    if not record.may_use(model):
        raise ApiError(403, f"this API key may not use `{model}`", code="model_not_in_scope", param="model")
    return body


def _without_fault(one: Loaded) -> dict[str, Any]:
    """Where there is one, all of it is refused."""
    return {key: value for key, value in vars(one).items() if key != "fault"}


def _told(target: Target, replicas: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": target.model,
        "digest": target.digest,
        "replicas": sorted(replicas, key=lambda one: str(one["replica"])),
    }


def _all(found: list[ReplicaState]) -> dict[str, Any]:
    return {
        "is_draining": all(one.is_draining for one in found),
        "answering": sum(one.answering for one in found),
        "replicas": [{**asdict(one), "kept": list(one.kept)} for one in found],
    }


@asynccontextmanager
async def _refusals() -> AsyncIterator[None]:
    """An operator may read why, with places."""
    try:
        yield
    except PlatformError as error:
        status, code = _kind_of(error)
        message = f"{error.line}; {error.fix}"
        raise ApiError(status, message, code=code, param="model") from error
    except ReplicaLost as error:
        raise ApiError(503, "no replica answers now", code="replica_lost", retry_after_s=1) from error
    except TimeoutError as error:
        raise ApiError(504, "replicas are still at it; ask /operate/standing", code="timeout") from error


def _kind_of(error: PlatformError) -> tuple[int, str]:
    match error:
        case NotRegisteredError():
            return 404, "model_not_found"
        case ConfigError():
            return 400, "malformed_reference"
        case InProduction():
            return 409, "in_production"
        case RefusedError() | IntegrityError():
            return 403, "model_refused"
        case StorageError():
            return 503, "registry_unavailable"
    return 500, "internal_error"

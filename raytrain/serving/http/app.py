"""The application: all routes over one backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from raytrain.serving.backend import Backend
from raytrain.serving.http.answering import Answering
from raytrain.serving.http.bodies import Body, ChatBody, ClassifyBody, CompletionBody
from raytrain.serving.http.classifying import Classifying
from raytrain.serving.http.errors import ApiError, ErrorAnswer
from raytrain.serving.http.feedback import FeedbackBody, feedback_routes
from raytrain.serving.http.gate import Gate
from raytrain.serving.http.health import health_routes
from raytrain.serving.http.limits import Doorkeeper
from raytrain.serving.http.metrics import Metrics
from raytrain.serving.http.models import model_routes
from raytrain.serving.http.operate import OPERATE, DrainBody, LoadBody, VersionBody, operate_routes
from raytrain.serving.http.page import page_routes
from raytrain.serving.http.record import record_of
from raytrain.serving.http.request_log import RequestLog
from raytrain.serving.http.section import HttpSection
from raytrain.serving.http.shapes import ChatAnswer, ClassifyAnswer, CompletionAnswer
from raytrain.serving.operations.protocol import Operations
from raytrain.serving.trials.desk import TrialDesk
from raytrain.serving.trials.log import TrialLog
from raytrain.serving.trials.section import TrialSection

_REFUSALS = (400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503, 504)
_REF = "#/components/schemas/{model}"
_ORIGIN = {
    "x-raytrain-model": "Which version answered.",
    "x-raytrain-digest": "The digest of its bundle.",
    "x-raytrain-trial": "On which side of a trial, `candidate` or `production`; absent where it was in none.",
}
_EVENTS: dict[str, Any] = {
    "schema": {
        "type": "object",
        "description": "Of each server-sent event: `data` is a chunk as JSON, an error as JSON, or [DONE].",
        "properties": {"data": {"type": "string"}},
        "required": ["data"],
    }
}


def build_app(
    backend: Backend,
    section: HttpSection,
    operations: Operations | None = None,
    trials: Sequence[TrialSection] = (),
    *,
    is_behind_ray: bool = False,
) -> FastAPI:
    """operations: what operators may do, if anything. is_behind_ray: its proxies tell clients the request's id.

    Raises ConfigError where nobody could ask, RefusedError where others may read the keys."""
    keeper = Doorkeeper(section)
    log = RequestLog(section.request_log) if section.request_log.is_on else None
    desk = _desk(backend, section, trials) if trials else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = None if operations is None else asyncio.create_task(operations.follow())
        yield
        if following is not None:
            following.cancel()
        if desk is not None:
            await desk.close()
        if log is not None:
            await asyncio.to_thread(log.close)

    app = FastAPI(
        title="raytrain",
        version=version("raytrain"),
        summary="OpenAI's API over a base model and its released adapters.",
        docs_url=None,  # these pages take their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    logs = {**({} if log is None else log.logs), **({} if desk is None else desk.logs)}
    metrics = Metrics(section.num_ingresses, logs, {} if desk is None else desk.counts)
    app.add_exception_handler(ApiError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.include_router(health_routes(backend, section, metrics))
    app.include_router(model_routes(backend))
    app.include_router(page_routes())
    _add_answers(app, Answering(backend, section, log, desk))
    _add_classification(app, Classifying(backend, section, log))
    if log is not None and section.request_log.feedback:
        app.include_router(feedback_routes(log, section))
    if operations is not None:
        app.include_router(operate_routes(operations, section))
    app.add_middleware(Gate, section=section, keeper=keeper, metrics=metrics, tells_id=not is_behind_ray)
    if section.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(section.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client sends a dozen of its own, x-stainless-…
            expose_headers=["x-request-id", *_ORIGIN, "retry-after"],
        )
    _complete_openapi(app)
    return app


def _desk(backend: Backend, section: HttpSection, trials: Sequence[TrialSection]) -> TrialDesk:
    kept = section.request_log
    log = TrialLog(kept.place, kept.flush_s, section.num_ingresses)
    return TrialDesk(backend, trials, log, section.answer_time_s)


def _add_answers(app: FastAPI, answering: Answering) -> None:
    @app.post("/v1/completions", tags=["answers"], **_described(CompletionBody, CompletionAnswer))
    async def complete(request: Request) -> Response:
        """Continues each prompt."""
        return await answering.answer(request, CompletionBody)

    @app.post("/v1/chat/completions", tags=["answers"], **_described(ChatBody, ChatAnswer))
    async def chat(request: Request) -> Response:
        """Answers the last turn of a conversation."""
        return await answering.answer(request, ChatBody)


def _add_classification(app: FastAPI, classifying: Classifying) -> None:
    @app.post("/v1/classify", tags=["answers"], **_described(ClassifyBody, ClassifyAnswer, has_events=False))
    async def classify(request: Request) -> Response:
        """Tells each text's class."""
        return await classifying.answer(request)


def _described(body: type[Body], answer: Any, *, has_events: bool = True) -> dict[str, Any]:
    """Bodies are read by hand, for limits while they are read; what they are is told here."""
    content = {"application/json": {"schema": {"$ref": _REF.format(model=body.__name__)}}}
    origin = {name: {"schema": {"type": "string"}, "description": told} for name, told in _ORIGIN.items()}
    events = {"content": {"text/event-stream": _EVENTS}} if has_events else {}
    return {
        "response_model": None,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": {200: {"model": answer, "headers": origin, **events}},
    }


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    record_of(request).error = error.code
    return error.response()


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is no such route", 405: "this route knows no such method"}
    codes = {404: "route_not_found", 405: "method_not_allowed"}
    told = ApiError(
        error.status_code,
        words.get(error.status_code, "the request was refused"),
        code=codes.get(error.status_code, "refused"),
    )
    response = await _refuse(request, told)
    response.headers.update(error.headers or {})
    return response


def _complete_openapi(app: FastAPI) -> None:
    """Adds what bodies and refusals are, and that a key is needed."""
    written = app.openapi()
    models = (CompletionBody, ChatBody, ClassifyBody, FeedbackBody, VersionBody, LoadBody, DrainBody)
    bodies: list[Any] = [(one, "validation") for one in models]
    schemas = written.setdefault("components", {}).setdefault("schemas", {})
    schemas |= models_json_schema(bodies, ref_template=_REF)[1]["$defs"]
    schemas |= _error_schemas()
    written["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    refusal = {
        "description": "OpenAI's errors",
        "content": {"application/json": {"schema": {"$ref": _REF.format(model="ErrorAnswer")}}},
    }
    for path, methods in written["paths"].items():
        for operation in methods.values():
            if path.startswith(("/v1/", OPERATE)) or path == "/metrics":
                operation["security"] = [{"key": []}]
                operation["responses"].pop("422", None)
                operation["responses"] |= {str(one): refusal for one in _REFUSALS}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    app.openapi_schema = written


def _error_schemas() -> dict[str, Any]:
    from pydantic import TypeAdapter

    schema = TypeAdapter(ErrorAnswer).json_schema(ref_template=_REF)
    return {**schema.pop("$defs"), "ErrorAnswer": schema}

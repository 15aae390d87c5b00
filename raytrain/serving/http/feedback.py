"""POST /v1/feedback: what became of an answer."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from raytrain.serving.http.bodies import Body
from raytrain.serving.http.errors import ApiError
from raytrain.serving.http.reading import read_body
from raytrain.serving.http.record import record_of, request_id_of
from raytrain.serving.http.request_log import RequestLog
from raytrain.serving.http.section import HttpSection

_PREFIXES = ("chatcmpl-", "cmpl-", "classify-")
_MOST_OF_AN_ID = 1024
"""Characters: a client may call its requests as it likes."""
_MOST_OF_A_CORRECTION = 1 << 17
"""Characters: some thirty thousand tokens."""


class FeedbackBody(Body):
    """A thumb, a better answer, or both."""

    request_id: Annotated[str, Field(min_length=1, max_length=_MOST_OF_AN_ID)]
    """The header x-request-id of an answer, or the answer's `id`."""
    rating: Literal["up", "down"] | None = None
    correction: Annotated[str, Field(min_length=1, max_length=_MOST_OF_A_CORRECTION)] | None = None
    """What should have been answered."""


class FeedbackAnswer(TypedDict):
    request_id: str
    is_known: bool
    """Whether this process remembers the answer, and gave it to this key."""


def feedback_routes(log: RequestLog, section: HttpSection) -> APIRouter:
    """Taken down with the digest that answered."""
    routes = APIRouter(tags=["answers"])
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/FeedbackBody"}}}

    @routes.post(
        "/v1/feedback",
        response_model=None,
        responses={200: {"model": FeedbackAnswer}},
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )
    async def take(request: Request) -> Response:
        """Tells what became of an answer."""
        body = await read_body(request, FeedbackBody, section)
        if body.rating is None and body.correction is None:
            raise ApiError(
                400, "give a rating, a correction, or both", code="missing_required_parameter", param="rating"
            )
        name = _request_id(body.request_id)
        is_known = log.take_feedback(record_of(request), name, body.rating, body.correction)
        told: FeedbackAnswer = {"request_id": name, "is_known": is_known}
        return JSONResponse(told)

    return routes


def _request_id(told: str) -> str:
    """From an answer's `id`, or from what the client calls its request."""
    prefix = next((one for one in _PREFIXES if told.startswith(one)), "")
    plain = told.removeprefix(prefix)
    return plain if plain == request_id_of(plain) else request_id_of(told)

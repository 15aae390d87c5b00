"""Refusals as OpenAI tells them, so that its clients raise what they raise there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.responses import JSONResponse
from typing_extensions import TypedDict

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError
from raytrain.serving.backend import (
    AnswerFailed,
    BadPrompt,
    Draining,
    OtherTask,
    RefusedModel,
    ReplicaLost,
    Undecided,
    UnknownModel,
)
from raytrain.serving.engine.request import Overloaded

_MOST_KNOWN = 50
"""Models that are named to whoever asks for one that is not there."""


class ErrorText(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(TypedDict):
    """What stands in the body of everything but 200."""

    error: ErrorText


class ApiError(Exception):
    """A request that is not answered, in words for whoever sent it: no paths, no traces."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    def answer(self) -> ErrorAnswer:
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"retry-after": str(math.ceil(self.retry_after_s))} if self.retry_after_s else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status in _UNREAD:
            headers["connection"] = "close"
        return JSONResponse(self.answer(), self.status, headers)


_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_UNREAD = (408, 413)
"""After these the rest of the body would be taken for another request."""


class ClientGone(Exception):
    """Nobody waits for this answer any more."""


def unknown_model(model: str, known: list[str]) -> ApiError:
    """404 with the names that this key may ask for."""
    near = nearest(model, known)
    listed = ", ".join(known[:_MOST_KNOWN]) or "none that this key may ask"
    hint = f"; did you mean `{near}`?" if near else "."
    # What was asked for is told back in part only: it may be anything.
    message = f"no model `{model[:100]}` answers here{hint} Models: {listed}"
    return ApiError(404, message, code="model_not_found", param="model")


def refusal_of(error: Exception, may_use: Callable[[str], bool]) -> ApiError | None:
    """What a backend's refusal is told as; None = it is no refusal. `may_use`: whether this key may know of a model."""
    match error:
        case ApiError():
            return error
        case TimeoutError():
            return ApiError(504, "the answer took longer than this server allows", code="timeout")
        case UnknownModel():
            return unknown_model(error.model, [one for one in error.known if may_use(one)])
        case RefusedModel():
            return ApiError(
                403,
                "this version is known and may not answer: it was revoked or withdrawn, or is not what was signed",
                code="model_refused",
                param="model",
            )
        case Undecided():
            return ApiError(
                503,
                "whether this version may answer cannot be known now; ask again, or ask for an alias",
                code="registry_unavailable",
                retry_after_s=5,
            )
        case OtherTask():
            return ApiError(400, error.message, code="model_has_other_task", param="model")
        case AnswerFailed():
            return ApiError(500, "the model gave what is no number", code="engine_error")
        case BadPrompt():
            return ApiError(400, error.message, code=error.code, param=error.param)
        case Overloaded():
            return ApiError(
                429,
                f"there is no room for this request now, and {error.waiting} others wait; try again later",
                code="queue_full",
                retry_after_s=max(1.0, error.retry_after_s),
            )
        case Draining():
            return ApiError(
                503,
                "no new requests are taken here now; ask elsewhere, or later",
                code="draining",
                retry_after_s=5,
            )
        case ReplicaLost():
            return ApiError(
                503, "the replica that answered has ended; ask again", code="replica_lost", retry_after_s=1
            )
        case ConfigError():
            return ApiError(400, error.line, code="invalid_json_schema", param="response_format")
    return None


@contextmanager
def refusals_told(may_use: Callable[[str], bool]) -> Iterator[None]:
    """Turn a backend's refusal inside the block into the ApiError that it is told as."""
    try:
        yield
    except Exception as error:
        told = refusal_of(error, may_use)
        if told is None:
            raise
        raise told from error


def internal_error(request_id: str) -> ApiError:
    """Told where nothing else may be."""
    return ApiError(
        500, f"an internal error; name request {request_id} to the operator", code="internal_error"
    )

"""From the bytes of a request to a checked body, with a word on what is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from raytrain.config.recipe import known_keys, nearest
from raytrain.serving.http.bodies import UNSUPPORTED
from raytrain.serving.http.errors import ApiError, ClientGone
from raytrain.serving.http.section import HttpSection

BodyT = TypeVar("BodyT", bound=BaseModel)

_MOST_DISCARDED_BYTES = 32 * 1024 * 1024
"""Of a body that is too long: read on and thrown away, so that whoever sends it gets to read the refusal."""
_MOST_DEPTH = 64
"""Of lists and objects in one another."""
_MOST_NAMES = 5000
"""Of one object: each that is unknown would be a fault of its own, of which one is told."""
_TAKES = {
    "prompt": "takes a text, a list of texts, token ids, or a list of lists of token ids; none may be empty",
    "input": "takes a text, or a list of texts; none may be empty",
    "stop": "takes a text, or a list of at most 4 texts, of 1 to 256 characters each",
    "content": "takes a text, or a list of parts of type `text`",
    "response_format": "takes an object whose type is `text`, `json_object` or `json_schema`",
}


async def read_body(request: Request, model: type[BodyT], section: HttpSection) -> BodyT:
    """Raises ApiError where it is too long, no JSON, or not as `model` says."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps a web page from asking across origins: a form's types need no permission from the server.
        raise ApiError(
            415, "send JSON, with the header content-type: application/json", code="unsupported_media_type"
        )
    try:
        async with asyncio.timeout(section.body_time_s):
            content = await _read(request, section.max_body_bytes)
    except TimeoutError as error:
        raise ApiError(
            408, f"the body took longer than {section.body_time_s:g} s", code="request_timeout"
        ) from error
    except ClientDisconnect as error:
        raise ClientGone from error
    return validated(model, parse(content))


async def _read(request: Request, most: int) -> bytes:
    parts, num = [], 0
    async for part in request.stream():
        num += len(part)
        if num <= most:
            parts.append(part)
        else:
            parts.clear()
            if num > most + _MOST_DISCARDED_BYTES:
                break
    if num > most:
        raise ApiError(413, f"the body is longer than {most} bytes", code="request_too_large")
    return b"".join(parts)


def parse(content: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN, no half of a surrogate pair, neither too deep nor too wide."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is no UTF-8") from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise _malformed("it holds NaN, Infinity, or a number of too many digits") from error
    _check_shape(value)
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _check_shape(value: Any) -> None:
    level: Sequence[Any] = [value]
    for _ in range(_MOST_DEPTH):
        if any(isinstance(one, dict) and len(one) > _MOST_NAMES for one in level):
            raise ApiError(400, f"an object holds more than {_MOST_NAMES} fields", code="invalid_json")
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _malformed("it holds half of a surrogate pair") from error


def _malformed(why: str) -> ApiError:
    return ApiError(400, f"the body is no JSON: {why}", code="invalid_json")


def _too_deep() -> ApiError:
    return ApiError(400, f"the body is nested more than {_MOST_DEPTH} deep", code="invalid_json")


def validated(model: type[BodyT], value: Any) -> BodyT:
    """Raises ApiError that names the first fault, unknown names before all others."""
    if not isinstance(value, dict):
        raise ApiError(400, "the body has to be a JSON object", code="invalid_type")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        unknown = [one for one in faults if one["type"] == "extra_forbidden"]
        fault = (unknown or faults)[0]
        path = _path(value, fault["loc"], is_missing=fault["type"] == "missing")
        raise _fault(model, path, fault["type"], fault["msg"]) from None


def _path(value: Any, loc: Sequence[str | int], *, is_missing: bool) -> list[str | int]:
    """Without the names of alternatives, which pydantic tells between keys."""
    path: list[str | int] = []
    for place, part in enumerate(loc):
        is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_index or (isinstance(value, dict) and part in value):
            value = value[part]
            path.append(part)
        elif is_missing and place == len(loc) - 1:
            path.append(part)
    return path


def _fault(model: type[BaseModel], path: list[str | int], kind: str, message: str) -> ApiError:
    param = ".".join(str(one)[:60] for one in path)
    name = next((str(one) for one in reversed(path) if isinstance(one, str)), "")
    taught = next((_TAKES[one] for one in path if one in _TAKES and kind != "extra_forbidden"), None)
    top = str(path[0]) if path else ""
    if kind == "extra_forbidden":
        if name in UNSUPPORTED:
            return _unsupported(param)
        near = nearest(name, known_keys(model, tuple(path[:-1])))
        hint = f"; did you mean `{near}`?" if near else ""
        return ApiError(400, f"there is no field `{param}`{hint}", code="unknown_parameter", param=param)
    if kind == "missing":
        return ApiError(400, f"`{param}` is missing", code="missing_required_parameter", param=param)
    if name in UNSUPPORTED:
        return _unsupported(param)
    if taught is not None and not (top == "response_format" and len(path) > 1):
        return ApiError(400, f"`{param}` {taught}", code="invalid_value", param=param)
    said = message[:1].lower() + message[1:]
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return ApiError(400, f"`{param}`: {said}", code=code, param=param)


def _unsupported(param: str) -> ApiError:
    return ApiError(
        400,
        f"`{param}` is not supported here with this value: leave it out",
        code="unsupported_parameter",
        param=param,
    )

"""From a checked body to what a backend is asked."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any

from raytrain.serving.backend import Ask, Message
from raytrain.serving.engine.request import Sampling
from raytrain.serving.http.bodies import (
    AnswerBody,
    ChatBody,
    CompletionBody,
    JsonObjectFormat,
    JsonSchemaFormat,
    MessageBody,
)
from raytrain.serving.http.errors import ApiError

_COMPLETION_TOKENS = 16
"""OpenAI's, of /v1/completions."""

_WORD = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_MODEL = re.compile(rf"{_WORD}(/{_WORD}){{0,3}}(@{_WORD})?")


def is_model_name(text: str) -> bool:
    """Whether a model may be called so: what is not is handed on to nobody, and stands in no log."""
    return len(text) <= 200 and ".." not in text and _MODEL.fullmatch(text) is not None


def asks_of(body: CompletionBody | ChatBody, request_id: str, max_answers: int) -> list[Ask]:
    """One for each answer: n to the first prompt, then n to the next. Raises ApiError where the body contradicts
    itself or wants too much."""
    _check_stream_options(body)
    prompts = _prompts(body)
    num = body.n or 1
    if len(prompts) * num > max_answers:
        raise ApiError(
            400,
            f"{len(prompts)} prompts with {num} answers each are more than {max_answers} answers to one request",
            code="too_many_answers",
            param="n",
        )
    seed = secrets.randbits(63) if body.seed is None else body.seed
    samplings = [_sampling(body, seed_of(seed, place)) for place in range(num)]
    # Two requests may come with the same id; an engine tells its requests apart by theirs.
    own = f"{request_id}.{secrets.token_hex(4)}"
    return [
        Ask(f"{own}-{place * num + answer}", body.model, prompt, samplings[answer], bool(body.stream))
        for place, prompt in enumerate(map(_prompt, prompts))
        for answer in range(num)
    ]


def seed_of(seed: int, place: int) -> int:
    """Of one of n answers, 0 and above; the first has the seed itself where it is not negative."""
    if place == 0:
        return seed % 2**64
    return int.from_bytes(hashlib.blake2b(f"{seed}-{place}".encode(), digest_size=8).digest(), "big")


def _prompts(body: CompletionBody | ChatBody) -> Sequence[Any]:
    """As they stand in the body: there may be far too many."""
    if isinstance(body, ChatBody):
        return [body.messages]
    prompt: Any = body.prompt
    return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt


def _prompt(told: Any) -> str | tuple[int, ...] | tuple[Message, ...]:
    if isinstance(told, str):
        return told
    return tuple(told) if isinstance(told[0], int) else tuple(map(_message, told))


def _message(body: MessageBody) -> Message:
    content = body.content if isinstance(body.content, str) else "".join(one.text for one in body.content)
    return {"role": "system" if body.role == "developer" else body.role, "content": content}


def _sampling(body: CompletionBody | ChatBody, seed: int) -> Sampling:
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Sampling(
        max_new_tokens=_max_tokens(body),
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=seed,
        stop=tuple(stop),
        top_logprobs=top_logprobs_of(body),
        json_schema=_json_schema(body),
    )


def _max_tokens(body: CompletionBody | ChatBody) -> int:
    """0 = what the context has room for."""
    if isinstance(body, CompletionBody):
        return body.max_tokens or _COMPLETION_TOKENS
    newer, older = body.max_completion_tokens, body.max_tokens
    if newer is not None and older is not None and newer != older:
        raise ApiError(
            400,
            f"max_tokens is {older} and max_completion_tokens {newer}: they mean the same, give one",
            code="invalid_value",
            param="max_tokens",
        )
    return newer or older or 0


def top_logprobs_of(body: CompletionBody | ChatBody) -> int | None:
    """As `Sampling` has it. Raises ApiError where the body contradicts itself."""
    if isinstance(body, CompletionBody):
        return body.logprobs
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", code="invalid_value", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _json_schema(body: AnswerBody) -> dict[str, Any] | None:
    match body.response_format:
        case JsonObjectFormat():
            return {}
        case JsonSchemaFormat(json_schema=wanted):
            return wanted.schema_ or {}
    return None


def _check_stream_options(body: AnswerBody) -> None:
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream: true", code="invalid_value", param="stream_options")

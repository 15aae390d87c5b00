"""From a request to its answers: whole, or as they are written."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.serving.backend import Backend
from raytrain.serving.engine.request import Piece
from raytrain.serving.http.answers import Answers, while_waited_for
from raytrain.serving.http.asking import asks_of, is_model_name, top_logprobs_of
from raytrain.serving.http.bodies import ChatBody, CompletionBody
from raytrain.serving.http.chat import ChatWriter
from raytrain.serving.http.completions import CompletionWriter
from raytrain.serving.http.errors import (
    ApiError,
    ClientGone,
    internal_error,
    refusal_of,
    refusals_told,
    unknown_model,
)
from raytrain.serving.http.reading import read_body
from raytrain.serving.http.record import Record, record_of
from raytrain.serving.http.request_log import RequestLog, Sample
from raytrain.serving.http.section import HttpSection
from raytrain.serving.http.writing import Head, Writer, Written
from raytrain.serving.trials.desk import TrialDesk
from raytrain.serving.trials.log import Part

_log = logging.getLogger(__name__)


class Answering:
    """Of all requests of one app."""

    def __init__(
        self, backend: Backend, section: HttpSection, log: RequestLog | None, desk: TrialDesk | None = None
    ) -> None:
        """log: None where nothing is kept; desk: None where there is no trial."""
        self._backend, self._section, self._log, self._desk = backend, section, log, desk

    async def answer(self, request: Request, model: type[CompletionBody] | type[ChatBody]) -> Response:
        """Raises ApiError, or ClientGone."""
        body = await read_body(request, model, self._section)
        record = record_of(request)
        record.route = request.scope["route"].path
        await check_model(self._backend, body.model, record)
        check_store(body.store, self._log)
        asks = asks_of(body, record.id, self._section.max_answers)
        record.num_answers, record.is_stream = body.n or 1, bool(body.stream)
        part = None if self._desk is None else self._desk.part_of(body.model, body.user, record.id)
        if part is not None:
            asks = part.sample.asks = [replace(one, arm=part.arm) for one in asks]
            part.sample.user = None if body.user is None else pseudonym(body.user)
        sample = None if self._log is None else self._log.choose(asks, body.user, body.store)
        answers = Answers(self._backend, asks if sample is None else sample.asks)
        left_s = self._section.answer_time_s - record.elapsed_s
        one = _Request(answers, record, body, time.monotonic() + left_s)
        one.keep_with(self._log, sample)
        if self._desk is not None and part is not None:
            one.take_part(self._desk, part)
        with refusals_told(record.may_use):
            if not body.stream:
                return await while_waited_for(request.receive, one.whole())
            await while_waited_for(request.receive, one.begin())
        return EventStream(one.events(), one.headers, answers.close, self._section.stall_time_s)


async def check_model(backend: Backend, model: str, record: Record) -> None:
    """Raises ApiError where no model may be called so, or the key may not ask it."""
    if not is_model_name(model):
        with refusals_told(record.may_use):
            cards = await backend.models()
        raise unknown_model(model, [one.id for one in cards if record.may_use(one.id)])
    record.model = model
    if not record.may_use(model):
        raise ApiError(403, f"this API key may not ask `{model}`", code="model_not_in_scope", param="model")


def check_store(store: bool | None, log: RequestLog | None) -> None:
    """Raises ApiError where a request asks to be kept, and nothing is."""
    if store and log is None:
        raise ApiError(
            400, "store: true, and this server keeps no answers", code="unsupported_parameter", param="store"
        )


class _Request:
    """One, from the moment at which its body is understood."""

    def __init__(
        self, answers: Answers, record: Record, body: CompletionBody | ChatBody, deadline: float
    ) -> None:
        self._answers, self._record, self._body, self._deadline = answers, record, body, deadline
        self._log: RequestLog | None = None
        self._sample: Sample | None = None
        self._desk: TrialDesk | None = None
        self._part: Part | None = None

    def take_part(self, desk: TrialDesk, part: Part) -> None:
        """In a trial."""
        self._desk, self._part = desk, part

    def keep_with(self, log: RequestLog | None, sample: Sample | None) -> None:
        """Where it is kept, if it is."""
        self._log, self._sample = log, sample

    @property
    def _writer(self) -> Writer:
        writer = ChatWriter if isinstance(self._body, ChatBody) else CompletionWriter
        return writer(self._head, top_logprobs_of(self._body))

    @property
    def headers(self) -> dict[str, str]:
        return self._head.headers

    async def begin(self) -> None:
        """Closes the answers where it raises."""
        if self._part is not None:
            self._part.asked_at = time.monotonic()
        try:
            async with self._time_limit():
                await self._answers.begin()
        except BaseException as error:
            if isinstance(error, Exception):
                self._fail(error)
            await self._answers.close()
            raise
        self._record.served = self._answers.served
        kind = "chatcmpl" if isinstance(self._body, ChatBody) else "cmpl"
        self._head = Head(f"{kind}-{self._record.id}", self._answers.served)
        if self._log is not None:
            self._log.remember(self._record, self._body.user)

    async def whole(self) -> Response:
        await self.begin()
        written: dict[int, Written] = {}
        try:
            async with self._time_limit():
                while (told := await self._answers.next()) is not None:
                    place, piece = told
                    self._note(place, piece)
                    written.setdefault(place, Written()).add(piece)
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self._keep()
            await self._answers.close()
        whole = [written[place] for place in sorted(written)]
        return JSONResponse(self._writer.whole(whole, self._record.usage), headers=self.headers)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events. What goes wrong after the first is told in one more, and `[DONE]` is missing."""
        writer, begun = self._writer, set[int]()
        try:
            while True:
                async with self._time_limit():
                    told = await self._answers.next()
                if told is None:
                    break
                place, piece = told
                self._note(place, piece)
                opening = None if place in begun else writer.opening(place)
                begun.add(place)
                chunks = [] if opening is None else [opening]
                for chunk in [*chunks, *writer.chunks(place, piece)]:
                    yield _event(chunk)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told that this is no end
            self._fail(error)
            fault = refusal_of(error, self._record.may_use)
            if fault is None:
                _log.error("a stream failed (%s): %s", self._record.id, type(error).__name__)
                fault = internal_error(self._record.id)
            self._record.error = fault.code
            yield _event(fault.answer())
            return
        finally:
            self._keep()
        options = self._body.stream_options
        if options is not None and options.include_usage:
            yield _event(writer.closing(self._record.usage))
        yield b"data: [DONE]\n\n"

    def _note(self, place: int, piece: Piece) -> None:
        self._record.note(place, piece)
        for sample in (self._sample, None if self._part is None else self._part.sample):
            if sample is not None:
                sample.add(place, piece)

    def _fail(self, error: Exception) -> None:
        if self._sample is not None:
            self._sample.fail()
        if self._desk is not None and self._part is not None:
            self._desk.failed(self._part, self._record, error)

    def _keep(self) -> None:
        """However it ended."""
        if self._log is not None and self._sample is not None:
            self._log.end(self._record, self._sample)
        if self._desk is not None and self._part is not None:
            self._part.ended_at = None if self._body.stream else time.monotonic()
            self._desk.ended(self._part, self._record, self._log if self._sample is not None else None)

    def _time_limit(self) -> asyncio.Timeout:
        left_s = self._deadline - time.monotonic()
        return asyncio.timeout(max(0.0, left_s))


def _event(value: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class EventStream(Response):
    """Sends events no faster than they are taken, and closes what makes them when nobody takes them any more."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        close: Callable[[], Awaitable[None]],
        stall_time_s: float,
    ) -> None:
        # No proxy may keep events back until there are more of them.
        super().__init__(headers={**headers, "cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._close, self._stall_time_s = events, close, stall_time_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        try:
            await while_waited_for(receive, self._send(send))
        finally:
            await self._close()

    async def _send(self, send: Send) -> None:
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            async with aclosing(self._events) as events:
                await send(head)
                async for event in events:
                    async with asyncio.timeout(self._stall_time_s):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (OSError, TimeoutError) as error:
            raise ClientGone from error

"""/v1/classify: from a request to the classes of its texts."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from raytrain.serving.backend import Ask, Backend, Classification, Classified, ClassifyAsk
from raytrain.serving.engine.request import Finish, Sampling
from raytrain.serving.http.answering import check_model, check_store
from raytrain.serving.http.answers import while_waited_for
from raytrain.serving.http.bodies import ClassifyBody
from raytrain.serving.http.errors import refusals_told
from raytrain.serving.http.reading import read_body
from raytrain.serving.http.record import Record, record_of
from raytrain.serving.http.request_log import RequestLog
from raytrain.serving.http.section import HttpSection
from raytrain.serving.http.shapes import ClassifiedText, ClassifyAnswer
from raytrain.serving.http.writing import Head, Written


class Classifying:
    """Of all requests of one app."""

    def __init__(self, backend: Backend, section: HttpSection, log: RequestLog | None) -> None:
        """log: None where nothing is kept."""
        self._backend, self._section, self._log = backend, section, log

    async def answer(self, request: Request) -> Response:
        """Raises ApiError, or ClientGone."""
        body = await read_body(request, ClassifyBody, self._section)
        record = record_of(request)
        record.route = request.scope["route"].path
        await check_model(self._backend, body.model, record)
        check_store(body.store, self._log)
        texts = (body.input,) if isinstance(body.input, str) else tuple(body.input)
        ask = ClassifyAsk(f"{record.id}.{secrets.token_hex(4)}", body.model, texts)
        with refusals_told(record.may_use):
            found = await while_waited_for(request.receive, self._asked(ask, record))
        _note(record, found)
        self._keep(record, body, ask, found)
        head = Head(f"classify-{record.id}", found.served)
        return JSONResponse(_told(head, found, record), headers=head.headers)

    async def _asked(self, ask: ClassifyAsk, record: Record) -> Classified:
        async with asyncio.timeout(max(0.0, self._section.answer_time_s - record.elapsed_s)):
            return await self._backend.classify(ask)

    def _keep(self, record: Record, body: ClassifyBody, ask: ClassifyAsk, found: Classified) -> None:
        if self._log is None:
            return
        self._log.remember(record, body.user)
        asks = [Ask(ask.id, ask.model, one, Sampling(0)) for one in ask.texts]
        sample = self._log.choose(asks, body.user, body.store)
        if sample is None:
            return
        for place, one in enumerate(found.answers):
            kept = dict(zip(found.labels, one.probabilities, strict=True))
            sample.written[place] = Written(json.dumps(kept, ensure_ascii=False))
        self._log.end(record, sample)


def _note(record: Record, found: Classified) -> None:
    record.served = found.served
    for place, one in enumerate(found.answers):
        record.finishes[place] = Finish("stop", one.num_tokens, 0, 0, one.queue_s, 0.0)


def _told(head: Head, found: Classified, record: Record) -> ClassifyAnswer:
    return {
        "id": head.id,
        "object": "list",
        "created": head.created,
        "model": found.served.model,
        "labels": list(found.labels),
        "data": [_classified(place, one, found.labels) for place, one in enumerate(found.answers)],
        "usage": record.usage,
        "raytrain": head.origin,
    }


def _classified(place: int, answer: Classification, labels: Sequence[str]) -> ClassifiedText:
    """The likeliest label, the first of equals."""
    chances = answer.probabilities
    return {
        "index": place,
        "label": labels[chances.index(max(chances))],
        "probs": list(chances),
        "num_classes": len(chances),
    }

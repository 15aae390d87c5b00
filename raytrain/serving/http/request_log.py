"""A share of what was asked and answered, kept for those who watch quality: as Parquet, without personal data and
secrets as far as raytrain's detectors find them."""

from __future__ import annotations

import json
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from raytrain.evaluation.confidence import Confidence, confidence_of
from raytrain.evaluation.safety.findings import Detector, build_detectors, outermost, scan
from raytrain.serving.backend import Ask
from raytrain.serving.engine.request import Piece
from raytrain.serving.http.parquet_log import ParquetLog
from raytrain.serving.http.record import Record
from raytrain.serving.http.section import RequestLogSection
from raytrain.serving.http.writing import Written

_MOST_REMEMBERED = 10_000
"""Answers that feedback may still be tied to."""
_UNSURE = "[not kept: a detector failed]"
_TEXTS = pa.list_(pa.string())
_WHO = [
    ("at", pa.timestamp("ms", tz="UTC")), ("request_id", pa.string()), ("key", pa.string()), ("model", pa.string()),
    ("digest", pa.string()), ("arm", pa.string()),
]  # fmt: skip
_REQUESTS = pa.schema(
    [
        *_WHO, ("base_digest", pa.string()), ("route", pa.string()), ("prompts", _TEXTS), ("answers", _TEXTS),
        ("finish", _TEXTS), ("temperature", pa.float64()), ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()), ("first_piece_s", pa.float64()), ("duration_s", pa.float64()),
        ("pair", pa.string()), ("top_1", pa.float64()), ("top_5", pa.float64()), ("entropy", pa.float64()),
    ]
)  # fmt: skip
_FEEDBACK = pa.schema([*_WHO, ("rating", pa.string()), ("correction", pa.string())])


@dataclass
class Sample:
    """A request whose words are kept."""

    asks: list[Ask]
    written: dict[int, Written] = field(default_factory=dict)

    def add(self, place: int, piece: Piece) -> None:
        self.written.setdefault(place, Written(reason="cancelled")).add(piece)


class RequestLog:
    """Of one process; `close` it."""

    def __init__(self, section: RequestLogSection) -> None:
        folder = section.place
        self._share, self._detectors = section.share, build_detectors()
        self._requests = ParquetLog(folder, "requests", _REQUESTS, section.flush_s)
        self._feedback = ParquetLog(folder, "feedback", _FEEDBACK, section.flush_s)
        self._remembered: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    @property
    def logs(self) -> dict[str, ParquetLog]:
        """By what they hold."""
        return {"requests": self._requests, "feedback": self._feedback}

    def begin(self, record: Record, asks: list[Ask]) -> Sample | None:
        """None where this request's words are not kept."""
        self._remembered[record.id] = _who(record)
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return Sample(asks) if random.random() < self._share else None

    def end(self, record: Record, sample: Sample) -> None:
        """Its personal data is taken out in the log's own thread."""
        written = [sample.written[place] for place in sorted(sample.written)]
        prompts = [ask.prompt for place, ask in enumerate(sample.asks) if place % record.num_answers == 0]
        served, usage = record.served, record.usage
        self._requests.put(
            {
                **_who(record),
                "base_digest": None if served is None else served.base_digest,
                "route": record.route,
                "prompts": lambda: [without_personal_data(_text(one), self._detectors) for one in prompts],
                "answers": lambda: [without_personal_data(one.text, self._detectors) for one in written],
                "finish": [one.reason for one in written],
                "temperature": sample.asks[0].sampling.temperature,
                "prompt_tokens": usage["prompt_tokens"],
                "completion_tokens": usage["completion_tokens"],
                "first_piece_s": record.first_piece_s,
                "duration_s": record.elapsed_s,
                "pair": None if served is None or served.arm is None else pair_of(sample.asks),
                "top_1": lambda: _confidence(written).top_1,
                "top_5": lambda: _confidence(written).top_5,
                "entropy": lambda: _confidence(written).entropy,
            }
        )

    def take_feedback(
        self, record: Record, request_id: str, rating: str | None, correction: str | None
    ) -> bool:
        """Whether this process answered that request to this key. Kept in either case: another may have answered."""
        who = _who(record)
        found = self._remembered.get(request_id)
        is_known = found is not None and found["key"] == who["key"]
        about = (
            found if found is not None and is_known else {**who, "model": None, "digest": None, "arm": None}
        )
        cleaned = None if correction is None else lambda: without_personal_data(correction, self._detectors)
        self._feedback.put(
            {**about, "at": who["at"], "request_id": request_id, "rating": rating, "correction": cleaned}
        )
        return is_known

    def close(self) -> None:
        self._requests.close()
        self._feedback.close()


def without_personal_data(text: str, detectors: Mapping[str, Detector]) -> str:
    """Each finding's place is taken by its kind. Where a detector failed nothing of the text is told."""
    found = scan(text, detectors)
    if found.failures:
        return _UNSURE
    parts, end = [], 0
    for one in outermost(found.findings):
        parts += [text[end : one.start], f"[{one.kind}]"]
        end = one.end
    return "".join([*parts, text[end:]])


def pair_of(asks: Sequence[Ask]) -> str:
    """What a request and its mirrored one have in common, and no others: a client may choose a request's id."""
    return asks[0].id.rpartition("-")[0]


def _confidence(written: Sequence[Written]) -> Confidence:
    """Of whoever asked for logprobs; others' answers tell nothing."""
    return confidence_of(
        [[logprob for *_, logprob in token.alternatives] for one in written for token in one.tokens]
    )


def _text(prompt: Any) -> str:
    """A text as it is; ids and messages as JSON."""
    return prompt if isinstance(prompt, str) else json.dumps(list(prompt), ensure_ascii=False)


def _who(record: Record) -> dict[str, Any]:
    served = record.served
    return {
        "at": datetime.now(UTC),
        "request_id": record.id,
        "key": None if record.key is None else record.key.name,
        "model": None if served is None else served.model,
        "digest": None if served is None else served.digest,
        "arm": None if served is None else served.arm,
    }

"""A share of what was asked and answered, kept for those who watch quality: as Parquet, without personal data and
secrets as far as raytrain's detectors find them."""

from __future__ import annotations

import json
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from raytrain.evaluation.confidence import NUM_LIKELIEST, Confidence, confidence_of
from raytrain.evaluation.safety.findings import build_detectors
from raytrain.evaluation.safety.redaction import number_of_token_ids, pseudonym, without_personal_data
from raytrain.serving.backend import Ask, Prompt
from raytrain.serving.engine.request import Piece, Sampling
from raytrain.serving.http.parquet_log import ParquetLog
from raytrain.serving.http.record import Record
from raytrain.serving.http.section import RequestLogSection
from raytrain.serving.http.writing import Written

_MOST_REMEMBERED = 10_000
"""Answers that feedback may still be tied to."""
_CHARACTERS_OF_A_TOKEN = 256
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
        ("pair", pa.string()), ("user", pa.string()), ("consent", pa.bool_()), ("top_1", pa.float64()),
        ("top_5", pa.float64()), ("entropy", pa.float64()),
    ]
)  # fmt: skip
_FEEDBACK = pa.schema([*_WHO, ("rating", pa.string()), ("correction", pa.string()), ("user", pa.string())])


@dataclass
class Sample:
    """A request whose words are kept."""

    asks: list[Ask]
    user: str | None = None
    """As `pseudonym` names it."""
    consent: bool = False
    """Whether who asked has said that it may be kept, and learned from."""
    written: dict[int, Written] = field(default_factory=dict)

    def add(self, place: int, piece: Piece) -> None:
        self.written.setdefault(place, Written(reason="cancelled")).add(piece)

    def fail(self) -> None:
        """The server could not write the rest: nobody broke it off."""
        for place in range(len(self.asks)):
            written = self.written.setdefault(place, Written(reason="cancelled"))
            if written.reason == "cancelled":
                written.reason = "error"


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

    def choose(self, asks: list[Ask], user: str | None, store: bool | None = None) -> Sample | None:
        """None where this request's words are not kept. What is kept tells its probabilities besides.

        store: what the request says of it; None = nothing, and the share decides.
        """
        is_kept = random.random() < self._share if store is None else store
        if not is_kept:
            return None
        told = [one if one.sampling.top_logprobs else replace(one, sampling=_telling(one)) for one in asks]
        return Sample(told, None if user is None else pseudonym(user), bool(store))

    def remember(self, record: Record, user: str | None) -> None:
        """A request that somebody begins to answer, for its feedback, which is its user's as the request is."""
        self._remembered[record.id] = {**_who(record), "user": None if user is None else pseudonym(user)}
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)

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
                "user": sample.user,
                "consent": sample.consent,
                "top_1": lambda: _confidence(written).top_1,
                "top_5": lambda: _confidence(written).top_5,
                "entropy": lambda: _confidence(written).entropy,
            },
            sum(map(_num_characters, prompts)) + sum(map(_num_kept, written)),
        )

    def take_feedback(
        self, record: Record, request_id: str, rating: str | None, correction: str | None
    ) -> bool:
        """Whether this process answered that request to this key. Kept in either case: another may have answered."""
        who = _who(record)
        found = self._remembered.get(request_id)
        is_known = found is not None and found["key"] == who["key"]
        nobody = {"model": None, "digest": None, "arm": None, "user": None}
        about = found if found is not None and is_known else {**who, **nobody}
        cleaned = None if correction is None else lambda: without_personal_data(correction, self._detectors)
        self._feedback.put(
            {**about, "at": who["at"], "request_id": request_id, "rating": rating, "correction": cleaned},
            len(correction or ""),
        )
        return is_known

    def close(self) -> None:
        self._requests.close()
        self._feedback.close()


def _num_characters(prompt: Prompt) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    return sum(1 if isinstance(one, int) else len(one["content"]) for one in prompt)


def _num_kept(written: Written) -> int:
    """In characters, what an answer takes in memory: each token knows its likeliest alternatives."""
    return len(written.text) + _CHARACTERS_OF_A_TOKEN * len(written.tokens)


def _telling(ask: Ask) -> Sampling:
    return replace(ask.sampling, top_logprobs=NUM_LIKELIEST)


def pair_of(asks: Sequence[Ask]) -> str:
    """What a request and its mirrored one have in common, and no others: a client may choose a request's id."""
    return asks[0].id.rpartition("-")[0]


def _confidence(written: Sequence[Written]) -> Confidence:
    return confidence_of(
        [[logprob for *_, logprob in token.alternatives] for one in written for token in one.tokens]
    )


def _text(prompt: Any) -> str:
    """A text as it is, messages as JSON; of token ids their number."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt[0], int):
        return number_of_token_ids(prompt)
    return json.dumps(list(prompt), ensure_ascii=False)


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

"""What came of the requests of a trial: numbers alone, a row for each answer. No prompt and no answer is kept here."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from raytrain.evaluation.safety.refusals import behaviour_by_rules
from raytrain.serving.backend import Arm
from raytrain.serving.http.parquet_log import ParquetLog
from raytrain.serving.http.record import Record
from raytrain.serving.http.request_log import Sample, pair_of
from raytrain.serving.trials.section import TrialSection

KIND = "trials"
SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("ms", tz="UTC")), ("trial", pa.string()), ("name", pa.string()), ("mode", pa.string()),
        ("pairs", pa.int64()), ("slower_by", pa.float64()), ("pair", pa.string()), ("request_id", pa.string()),
        ("caller", pa.string()),
        ("arm", pa.string()), ("model", pa.string()), ("digest", pa.string()), ("base_digest", pa.string()),
        ("is_greedy", pa.bool_()), ("agrees", pa.bool_()), ("is_valid", pa.bool_()), ("is_refusal", pa.bool_()),
        ("is_whole", pa.bool_()), ("tokens", pa.int64()), ("first_token_s", pa.float64()), ("seconds", pa.float64()),
        ("error", pa.string()), ("ingress", pa.string()), ("num_ingresses", pa.int64()), ("flush_s", pa.float64()),
    ]
)  # fmt: skip


@dataclass
class Part:
    """What one request has to do with a trial, while it is answered."""

    trial: TrialSection
    caller: str
    arm: Arm
    """On whose side it is asked; of a shadow, production's."""
    sample: Sample = field(default_factory=lambda: Sample([]))
    asked_at: float = 0.0
    """By time.monotonic()."""
    ended_at: float | None = None
    """None where a client read along: it may have read slowly."""


class TrialLog:
    """Of one process; `close` it."""

    def __init__(self, folder: Path, flush_s: float, num_ingresses: int = 1) -> None:
        """num_ingresses: how many processes keep such a log beside each other."""
        self._written_by = {"ingress": uuid.uuid4().hex, "num_ingresses": num_ingresses, "flush_s": flush_s}
        self._rows = ParquetLog(folder, KIND, SCHEMA, flush_s)
        self.logs = {KIND: self._rows}

    def put(
        self, part: Part, record: Record, *, agrees: bool | None = None, error: str | None = None
    ) -> None:
        """error: of a shadow's candidate, where it had no answer to what production had answered; of either side of a
        canary, where an answer came to no end."""
        served, sample, trial = record.served, part.sample, part.trial
        assert served is not None or error is not None, "who answered is known"
        texts = [sample.written[place].text for place in sorted(sample.written)]
        finishes = [record.finishes[place] for place in sorted(record.finishes)]
        sampling = sample.asks[0].sampling
        schema = sampling.json_schema
        self._rows.put(
            {
                "at": datetime.now(UTC),
                "trial": trial.id,
                "name": trial.name,
                "mode": trial.mode,
                "pairs": trial.pairs,
                "slower_by": trial.slower_by,
                "pair": pair_of(sample.asks),
                "request_id": record.id,
                "caller": part.caller,
                "arm": part.arm if served is None else served.arm,
                "model": None if served is None else served.model,
                "digest": None if served is None else served.digest,
                "base_digest": None if served is None else served.base_digest,
                "is_greedy": sampling.temperature == 0.0,
                "agrees": agrees,
                "is_valid": None if schema is None else lambda: all(fits(one, schema) for one in texts),
                "is_refusal": lambda: any(behaviour_by_rules([], one) == "refused" for one in texts),
                "is_whole": all(one.reason == "stop" for one in finishes),
                "tokens": sum(one.num_new_tokens for one in finishes),
                "first_token_s": finishes[0].first_token_s if finishes else None,
                "seconds": None if part.ended_at is None else part.ended_at - part.asked_at,
                "error": error,
                **self._written_by,
            },
            sum(map(len, texts)),
        )

    def close(self) -> None:
        self._rows.close()


def fits(text: str, schema: dict[str, Any]) -> bool:
    """Whether an answer is whole JSON, of a schema that it was held to while it was written; {} = of any object.

    It is not held to the schema again: that is the client's, and a pattern in it may take for ever.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(schema) or isinstance(value, dict)


def agree(first: Sample, second: Sample, places: Sequence[int]) -> bool:
    """Whether both say the same, word for word."""
    return all(first.written[place].text == second.written[place].text for place in places)

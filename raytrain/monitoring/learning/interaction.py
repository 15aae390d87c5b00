"""One answer that was given to somebody, and what became of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from raytrain.evaluation.safety.redaction import UNSURE, is_number_of_token_ids
from raytrain.monitoring.times import as_seconds

Rating = Literal["up", "down"]
Message = dict[str, str]


@dataclass(frozen=True)
class Interaction:
    """As serving's request log and its feedback tell it."""

    id: str
    """The same for the same answer, whoever reads the log again."""
    at: float
    """Seconds since the epoch."""
    request_id: str
    user: str | None
    """The pseudonym that the request log has."""
    consent: bool
    model: str | None
    digest: str | None
    """Of the version that answered."""
    prompt: tuple[Message, ...]
    answer: str
    finish: str
    rating: Rating | None = None
    correction: str | None = None
    """What should have been answered."""

    @property
    def target(self) -> str:
        """What is learned."""
        return self.answer if self.correction is None else self.correction

    @property
    def asked(self) -> str:
        """All that the model was told, as one text."""
        return "\n".join(message["content"] for message in self.prompt)


def interactions_of(row: Mapping[str, Any], feedback: Mapping[str, Any] | None) -> Iterator[Interaction]:
    """Of one row of the request log: one for each answer, without those whose words were not kept.

    Feedback is about a whole request: it counts where there was one answer. Raises KeyError, TypeError or ValueError
    where the row is none of the request log's.
    """
    prompts, answers = list(row["prompts"]), list(row["answers"])
    if not prompts or len(answers) % len(prompts):
        raise ValueError(f"{len(answers)} answers to {len(prompts)} prompts")
    if math.isnan(as_seconds(row["at"])):
        raise ValueError(f"it has no time: {row['at']!r}")
    each = len(answers) // len(prompts)
    told = feedback if feedback is not None and len(answers) == 1 else {}
    for place, answer in enumerate(answers):
        prompt = _messages(prompts[place // each])
        if prompt is None or UNSURE in (answer, *(one["content"] for one in prompt)):
            continue
        yield Interaction(
            id=_id(row, place),
            at=as_seconds(row["at"]),
            request_id=row["request_id"],
            user=row.get("user"),
            consent=bool(row.get("consent")),
            model=row["model"],
            digest=row["digest"],
            prompt=prompt,
            answer=answer,
            finish=row["finish"][place],
            rating=told.get("rating"),
            correction=told.get("correction"),
        )


def _id(row: Mapping[str, Any], place: int) -> str:
    said = f"{row['request_id']}\0{row['digest']}\0{as_seconds(row['at'])}\0{place}"
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _messages(prompt: str) -> tuple[Message, ...] | None:
    """A text is what a user said; messages are kept as JSON. None for token ids, whose number alone is kept."""
    if is_number_of_token_ids(prompt):
        return None
    try:
        parsed = json.loads(prompt)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, list) and parsed and all(_is_message(one) for one in parsed):
        return tuple({"role": one["role"], "content": one["content"]} for one in parsed)
    return ({"role": "user", "content": prompt},)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))

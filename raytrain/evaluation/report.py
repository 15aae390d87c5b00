"""What an evaluation found: a summary of each suite, and of what the figures rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from raytrain.evaluation.items import Suite, how_asked
from raytrain.evaluation.metrics import (
    choice_lead,
    find_metric,
    interval_of_mean,
    metric_names,
    perplexity_of,
)
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.statistics.pairs import Interval

FORMAT = 1

_NEAR_TIE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
"""Leads, in logits or nats, below which sums in another order may turn a choice round: rounding of logits of about 20,
added up over some hundred terms, with a margin of ten."""


@dataclass(frozen=True)
class EvaluatedModel:
    """Who answered."""

    reference: str
    """As the user wrote it; an endpoint's URL, or the file of outputs."""
    base_model: str | None = None
    base_digest: str | None = None
    adapter_digest: str | None = None
    outputs_digest: str | None = None
    """Of outputs that were written elsewhere."""
    tokenizer_digest: str | None = None
    template_digest: str | None = None
    """Of the chat template that questions went through."""
    host: str | None = None
    """Name of the machine, where an endpoint's address is one that every machine has for itself."""

    @property
    def parents(self) -> dict[str, str]:
        """Role to digest, as a manifest has it."""
        found = {
            "base_model": self.base_digest,
            "adapter": self.adapter_digest,
            "outputs": self.outputs_digest,
        }
        return {role: digest for role, digest in found.items() if digest is not None}


@dataclass(frozen=True)
class SuiteReport:
    """One suite's. `score` is the mean of the first metric over all items; an item that failed counts as 0."""

    name: str
    version: str
    digest: str
    kind: str
    mode: str
    num_items: int
    num_failed: int
    """Items without a score: the scorer raised, the prompt was too long, the model gave NaN."""
    num_empty: int
    """Items whose answer is empty; those that failed have none."""
    num_cut_short: int
    """Answers that ended at max_new_tokens."""
    num_near_ties: int | None
    """Items whose answer hangs on a lead that rounding could turn, of a multiple choice in any of its metrics; None
    where leads are not known."""
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    num_prompt_tokens: int
    num_new_tokens: int
    categories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Category to its number of items and score."""
    how_asked: dict[str, Any] = field(default_factory=dict)
    """Template, generation settings, scorer: what beside the items the digest is over."""

    @property
    def score(self) -> float:
        return self.metrics[metric_names(self.kind)[0]]


@dataclass(frozen=True)
class EvaluationReport:
    """All suites of one evaluation."""

    model: EvaluatedModel
    settings: dict[str, Any]
    """What may change answers beside model and suites: dtype, batch size, an endpoint's options."""
    suites: dict[str, SuiteReport]

    def as_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def content(self) -> dict[str, Any]:
        """What an evaluation's digest is over: without the words under which a model with a digest was named."""
        names = {"reference": "", "base_model": None} if self.model.parents else {}
        return {**self.as_dict(), "model": {**asdict(self.model), **names}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> EvaluationReport:
        suites = {
            name: SuiteReport(
                **{**one, "intervals": {key: Interval(**found) for key, found in one["intervals"].items()}}
            )
            for name, one in content["suites"].items()
        }
        return cls(EvaluatedModel(**content["model"]), dict(content["settings"]), suites)


@dataclass(frozen=True)
class Asked:
    """What a summary is of."""

    name: str
    version: str
    digest: str
    kind: str
    mode: str
    how: dict[str, Any]


def summarise(suite: Suite, records: Sequence[ItemRecord], dtype: str | None) -> SuiteReport:
    """The summary of a suite whose every item has its record."""
    section = suite.section
    asked = Asked(
        section.suite, section.version, suite.digest, section.kind, section.prompt.mode, how_asked(section)
    )
    return summary_of(asked, records, dtype)


def summary_of(asked: Asked, records: Sequence[ItemRecord], dtype: str | None) -> SuiteReport:
    """The same for items that came from elsewhere than a suite's file."""
    kind = asked.kind
    values = {name: [find_metric(kind, name)(one) for one in records] for name in metric_names(kind)}
    groups = [one.group for one in records]
    metrics = {name: sum(found) / len(found) for name, found in values.items()}
    return SuiteReport(
        asked.name,
        asked.version,
        asked.digest,
        kind,
        asked.mode,
        num_items=len(records),
        num_failed=sum(one.score is None for one in records),
        num_empty=sum(
            kind == "generation" and one.score is not None and not one.output.strip() for one in records
        ),
        num_cut_short=sum(one.stop_reason == "length" for one in records),
        num_near_ties=_num_near_ties(records, dtype),
        metrics=metrics | (perplexity_of(records) if kind == "perplexity" else {}),
        intervals={name: interval_of_mean(found, groups) for name, found in values.items()},
        num_prompt_tokens=sum(one.num_prompt_tokens for one in records),
        num_new_tokens=sum(one.num_new_tokens for one in records),
        categories=_by_category(records, values[metric_names(kind)[0]]),
        how_asked=asked.how,
    )


def _num_near_ties(records: Sequence[ItemRecord], dtype: str | None) -> int | None:
    leads = [lead for one in records if (lead := _lead(one)) is not None]
    if not leads or dtype not in _NEAR_TIE:
        return None
    return sum(lead < _NEAR_TIE[dtype] for lead in leads)


def _lead(record: ItemRecord) -> float | None:
    if len(record.log_likelihoods) > 1:
        return choice_lead(record)
    return record.least_margin


def _by_category(records: Sequence[ItemRecord], values: Sequence[float]) -> dict[str, dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for one, value in zip(records, values, strict=True):
        if one.category is not None:
            found.setdefault(one.category, []).append(value)
    return {
        name: {"num_items": len(part), "score": sum(part) / len(part)} for name, part in sorted(found.items())
    }

"""What is measured of an item, by name: a score, or how a multiple choice was decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from raytrain.config.recipe import nearest
from raytrain.errors import ConfigError
from raytrain.evaluation.records import ItemRecord
from raytrain.evaluation.statistics.gains import gain_interval
from raytrain.evaluation.statistics.pairs import Interval, pair
from raytrain.evaluation.statistics.proportions import wilson_interval

Metric = Callable[[ItemRecord], float]


def _score(record: ItemRecord) -> float:
    return 0.0 if record.score is None else record.score


def _normalised_accuracy(record: ItemRecord) -> float:
    """Right where the choice that is likeliest for each of its bytes is the right one; the first of equals."""
    if record.score is None:
        return 0.0
    per_byte = _per_byte(record)
    return float(_likeliest(per_byte) == record.right)


def _per_byte(record: ItemRecord) -> list[float]:
    return [found / size for found, size in zip(record.log_likelihoods, record.num_bytes, strict=True)]


def _likeliest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


_METRICS: Mapping[str, Mapping[str, Metric]] = {
    "generation": {"score": _score},
    "multiple_choice": {"acc": _score, "acc_norm": _normalised_accuracy},
    "perplexity": {"byte_probability": _score},
}


def metric_names(kind: str) -> list[str]:
    """Of a suite of this kind; the first is the primary one unless a contract says otherwise."""
    return list(_METRICS[kind])


def find_metric(kind: str, name: str | None = None) -> Metric:
    """The metric of this name, or the first; all are from 0 to 1, more is better, and an item that failed has 0.

    Raises ConfigError where the kind has none of this name.
    """
    known = _METRICS[kind]
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        near = nearest(name, list(known))
        raise ConfigError(
            f"a suite of kind {kind} has no metric `{name}`",
            why=f"it has {', '.join(known)}",
            fix=f"did you mean `{near}`?" if near else "name one of these",
        )
    return known[name]


def choice_lead(record: ItemRecord) -> float:
    """In nats, the lead by which a multiple choice was decided: that of `acc` or of `acc_norm`, whichever is smaller.

    A lead for each byte is brought to nats by the harmonic mean of the two sizes: rounding that moves either sum by
    half a nat moves what is found for each byte by 1/2 (1/a + 1/b), and turns a lead below that.
    """
    second, best = sorted(record.log_likelihoods)[-2:]
    per_byte, sizes = _per_byte(record), record.num_bytes
    first = _likeliest(per_byte)
    normalised = (
        (per_byte[first] - per_byte[i]) * 2 / (1 / sizes[first] + 1 / sizes[i])
        for i in range(len(per_byte))
        if i != first
    )
    return min(best - second, *normalised)


def interval_of_mean(values: Sequence[float], groups: Sequence[str | None], level: float = 0.95) -> Interval:
    """Of one model's mean: Wilson for items right or wrong that stand alone, else that of the gain over nothing."""
    if groups_of(groups) is None and all(value in (0.0, 1.0) for value in values):
        return wilson_interval(int(sum(values)), len(values), level)
    found = gain_interval(pair([0.0] * len(values), values, groups_of(groups)), level)
    return Interval(max(0.0, found.low), min(1.0, found.high), level, found.method)


def groups_of(groups: Sequence[str | None]) -> list[str] | None:
    """Names for the statistics: None where no item names a group; an item without one stands for itself."""
    if all(one is None for one in groups):
        return None
    return [f"item {i}" if one is None else f"group {one}" for i, one in enumerate(groups)]


def perplexity_of(records: Sequence[ItemRecord]) -> dict[str, float]:
    """Over all texts together: bits per byte, and perplexity of a byte and of a word (what white space parts)."""
    judged = [one for one in records if one.score is not None and one.log_likelihoods]
    total = math.fsum(one.log_likelihoods[0] for one in judged)
    num_bytes = sum(one.num_bytes[0] for one in judged)
    if not num_bytes or not math.isfinite(total) or -total / num_bytes > 700.0:  # beyond it has no float
        return {}
    num_words = sum(len(one.references[0].split()) for one in judged)
    bits = -total / num_bytes / math.log(2)
    told = {"bits_per_byte": bits, "byte_perplexity": 2.0**bits}
    if num_words and -total / num_words < 700.0:
        told["word_perplexity"] = math.exp(-total / num_words)
    return told

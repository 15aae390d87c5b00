"""statistics.json: counts, lengths and samples of a prepared dataset. No time, no host, no absolute path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrain.data.dataset import row_as_canonical, text_of
from raytrain.data.duplicates import Duplicates
from raytrain.data.first_pass import RejectedRows, SourceTally
from raytrain.data.second_pass import SplitSummary
from raytrain.data.section import DataSection, SourceSection
from raytrain.data.sources import Source

_SAMPLES = 4
_EDGES = (0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


def sample_pairs(duplicates: Duplicates) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The first few (dropped, kept) rows among exact and among near duplicates."""

    def first(dropped: NDArray[np.bool_]) -> list[tuple[int, int]]:
        return [
            (row, int(duplicates.duplicate_of[row])) for row in np.flatnonzero(dropped)[:_SAMPLES].tolist()
        ]

    return first(duplicates.is_exact), first((duplicates.duplicate_of >= 0) & ~duplicates.is_exact)


def collect_statistics(
    section: DataSection,
    sources: list[Source[SourceSection]],
    tallies: list[SourceTally],
    duplicates: Duplicates,
    summaries: Mapping[str, SplitSummary],
    samples: Mapping[int, dict[str, Any]],
    rejected: RejectedRows,
) -> dict[str, Any]:
    """Everything that the data card tells, as one JSON object that the rows and the section determine."""
    exact, near = sample_pairs(duplicates)
    return {
        "rows": _totals(tallies, duplicates),
        "sources": [
            _source(source, tally, duplicates) for source, tally in zip(sources, tallies, strict=False)
        ],
        "splits": {split: _split(summary) for split, summary in summaries.items()},
        "rejected": dict(sorted(_sum_of_reasons(tallies).items())),
        "settings": {
            "val_fraction": section.val_fraction,
            "test_fraction": section.test_fraction,
            "split_salt": section.split_salt,
            "near_duplicate_threshold": section.near_duplicate_threshold,
        },
        "near_duplicate_search_was_cut": duplicates.search_was_cut,
        "samples": {
            "exact_duplicates": [_pair(samples, *pair) for pair in exact],
            "near_duplicates": [_pair(samples, *pair) for pair in near],
            "rejected": {reason: rejected.samples[reason] for reason in sorted(rejected.samples)},
            "train": summaries["train"].first_rows,
        },
    }


def _totals(tallies: list[SourceTally], duplicates: Duplicates) -> dict[str, int]:
    dropped = duplicates.duplicate_of >= 0
    num_exact = int(duplicates.is_exact.sum())
    return {
        "read": sum(tally.num_read for tally in tallies),
        "rejected": sum(tally.num_rejected for tally in tallies),
        "exact_duplicates": num_exact,
        "near_duplicates": int(dropped.sum()) - num_exact,
        "kept": int((~dropped).sum()),
    }


def _source(source: Source[SourceSection], tally: SourceTally, duplicates: Duplicates) -> dict[str, Any]:
    own = slice(tally.first_row, tally.first_row + tally.num_usable)
    dropped = duplicates.duplicate_of[own] >= 0
    exact = duplicates.is_exact[own]
    return {
        "name": source.name,
        "licence": source.section.licence,
        "read": tally.num_read,
        "rejected": dict(sorted(tally.rejected.items())),
        "exact_duplicates": int(exact.sum()),
        "near_duplicates": int((dropped & ~exact).sum()),
        "kept": int((~dropped).sum()),
        "notes": source.notes,
        "identity": source.identity,
    }


def _sum_of_reasons(tallies: list[SourceTally]) -> dict[str, int]:
    total: dict[str, int] = {}
    for tally in tallies:
        for reason, count in tally.rejected.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _pair(samples: Mapping[int, dict[str, Any]], dropped: int, kept: int) -> dict[str, Any]:
    def one(row: int) -> dict[str, Any]:
        found = samples[row]
        text = text_of(found) or json.dumps(row_as_canonical(found), ensure_ascii=False)
        return {"source": found["source"], "line": found["line"], "text": shortened(text)}

    return {"dropped": one(dropped), "kept": one(kept)}


def shortened(text: str, limit: int = 300) -> str:
    """At most `limit` characters, with a mark where the rest is missing."""
    return text if len(text) <= limit else text[:limit] + "…"


def _split(summary: SplitSummary) -> dict[str, Any]:
    num_chars = np.concatenate(summary.num_chars) if summary.num_chars else np.zeros(0, np.int32)
    if not len(num_chars):
        return {"rows": 0}
    counts, _ = np.histogram(num_chars, bins=[*_EDGES, np.iinfo(np.int64).max])
    low, middle, high = (int(value) for value in np.quantile(num_chars, [0.05, 0.5, 0.95], method="nearest"))
    return {
        "rows": len(num_chars),
        "chars": int(num_chars.sum(dtype=np.int64)),
        "mean_quality": round(summary.quality_sum / len(num_chars), 4),
        "num_chars": {
            "min": int(num_chars.min()),
            "p05": low,
            "median": middle,
            "p95": high,
            "max": int(num_chars.max()),
        },
        "histogram": [{"from": edge, "rows": int(count)} for edge, count in zip(_EDGES, counts, strict=True)],
    }

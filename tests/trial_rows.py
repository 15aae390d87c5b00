"""Rows of a trial, as an ingress leaves them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raytrain.serving.trials.log import SCHEMA

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, arm: str, **more: Any) -> dict[str, Any]:
    return {
        "at": START + timedelta(seconds=number), "trial": "first", "name": "sums", "mode": "shadow", "pairs": 200,
        "slower_by": 0.25, "pair": f"p{number}", "request_id": f"r{number}", "caller": f"c{number}", "arm": arm,
        "model": f"sums@1.{int(arm == 'candidate')}.0", "digest": arm, "base_digest": "base", "is_greedy": True,
        "agrees": True, "is_valid": None, "is_refusal": False, "is_whole": True, "tokens": 10,
        "first_token_s": 0.1, "seconds": 1.0, "error": None, "ingress": "a", "num_ingresses": 1,
        "flush_s": 30.0, **more,
    }  # fmt: skip


def pairs(
    numbers: Iterable[int], candidate: Callable[[int], Mapping[str, Any]] = lambda _: {}, **more: Any
) -> list[dict[str, Any]]:
    """Whose sides differ in what `candidate` says of each alone."""
    return [
        one
        for n in numbers
        for one in (row(n, "production", **more), row(n, "candidate", **{**more, **candidate(n)}))
    ]


def written(folder: Path, rows: Iterable[dict[str, Any]], kind: str = "trials", name: str = "") -> Path:
    """In several files, in no order."""
    folder.mkdir(exist_ok=True)
    rows = list(rows)
    random.Random(3).shuffle(rows)
    schema = SCHEMA if kind == "trials" else None
    for place in range(0, len(rows), 150):
        table = pa.Table.from_pylist(rows[place : place + 150], schema=schema)
        pq.write_table(table, folder / f"{kind}-{name}{place}.parquet")
    return folder

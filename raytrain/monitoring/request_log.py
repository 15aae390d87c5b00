"""A server's request log as it lies on disk: requests, and what was said of them afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raytrain.monitoring.times import as_seconds

Logged = dict[str, Any]

_SHOWN = 5
_CLOCK_S = 60.0
"""By so much a clock may have been set back between a row and its file."""


@dataclass(frozen=True)
class RequestLogFiles:
    """Rows as their columns have them. `notes` tell what could not be read and was left out."""

    requests: list[Logged]
    feedback: Mapping[tuple[str, Any], Logged]
    """By request id and key: the newest rating and the newest correction, with the time of the last."""
    notes: list[str]

    def answers(self) -> list[tuple[Logged, Logged | None]]:
        """Every answer that somebody was given, with what was said of it. What a shadow's candidate wrote beside it,
        under the same request, nobody has seen."""
        given = {_asked(one) for one in self.requests if one.get("arm") != "candidate"}
        return [
            (one, self.feedback_on(one))
            for one in self.requests
            if one.get("arm") != "candidate" or _asked(one) not in given
        ]

    def feedback_on(self, request: Mapping[str, Any]) -> Logged | None:
        return self.feedback.get(_asked(request))


def _asked(request: Mapping[str, Any]) -> tuple[str, Any]:
    return str(request.get("request_id")), request.get("key")


def read_request_log(folder: Path, since: float | None = None) -> RequestLogFiles:
    """Raises nothing for what is not there, half written, or of another kind.

    since: seconds since the epoch; files that were written before hold nothing later, and are not opened.
    """
    notes = [] if folder.is_dir() else [f"there is no folder {folder}: no server has written a log there yet"]
    requests = _read(folder, "requests", since, notes)
    feedback: dict[tuple[str, Any], Logged] = {}
    for one in sorted(_read(folder, "feedback", since, notes), key=lambda one: as_seconds(one.get("at"))):
        known = feedback.setdefault((str(one.get("request_id")), one.get("key")), {})
        known.update({name: one[name] for name in ("rating", "correction", "at") if one.get(name)})
    return RequestLogFiles(requests, feedback, notes)


def _read(folder: Path, kind: str, since: float | None, notes: list[str]) -> list[Logged]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Logged] = []
    broken: list[str] = []
    for path in sorted(folder.glob(f"{kind}-*.parquet")):
        if since is not None and _written_at(path.name) + _CLOCK_S < since:
            continue
        try:
            rows += pq.ParquetFile(path).read().to_pylist()
        except (OSError, pa.ArrowException, ValueError) as error:
            # Gone since it was listed, half copied, or of another kind.
            broken.append(f"{path.name} ({type(error).__name__})")
    if broken:
        more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        notes.append(f"files that cannot be read are left out: {', '.join(broken[:_SHOWN])}{more}")
    return rows


def _written_at(name: str) -> float:
    """The moment in a file's name; one without it may hold anything."""
    try:
        moment = datetime.strptime(name.split("-")[1], "%Y%m%dT%H%M%S")
    except (IndexError, ValueError):
        return math.inf
    return moment.replace(tzinfo=UTC).timestamp()

"""A server's request log as it lies on disk: requests, and what was said of them afterwards."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raytrain.monitoring.times import as_seconds

Logged = dict[str, Any]
Asked = tuple[str, Any]
"""Request id and key, which is all that feedback knows of what it is about."""

_TEXTS = ("request_id", "key", "model", "digest", "arm", "route", "user", "rating", "correction")
_LISTS = ("prompts", "answers", "finish")
"""Of texts."""
_SHOWN = 5
_CLOCK_S = 60.0
"""By so much a clock may have been set back between a row and its file."""


@dataclass(frozen=True)
class RequestLogFiles:
    """Rows as their columns have them. `notes` tell what could not be read and was left out."""

    requests: list[Logged]
    feedback: list[Logged]
    """In the order of time."""
    notes: list[str]

    def answers(self) -> list[tuple[Logged, Logged | None]]:
        """Every answer that somebody was given, with what was said of it. What a shadow's candidate wrote beside it,
        under the same request, nobody has seen.

        What was said is the newest rating and the newest correction, with the time of the last."""
        given = {_asked(one) for one in self.requests if one.get("arm") != "candidate"}
        answers = [one for one in self.requests if one.get("arm") != "candidate" or _asked(one) not in given]
        said = _said(answers, self.feedback)
        return [(one, said.get((_asked(one), _time(one)))) for one in answers]


def _said(answers: Sequence[Logged], feedback: Sequence[Logged]) -> dict[tuple[Asked, float], Logged]:
    """By what was asked, and when it was answered."""
    times: dict[Asked, list[float]] = {}
    for asked, at in sorted({(_asked(one), _time(one)) for one in answers}, key=lambda one: one[1]):
        times.setdefault(asked, []).append(at)
    found: dict[tuple[Asked, float], Logged] = {}
    for one in feedback:
        asked = _asked(one)
        meant = _time_meant(times.get(asked, []), _time(one))
        if meant is not None:
            known = found.setdefault((asked, meant), {})
            known.update({name: one[name] for name in ("rating", "correction", "at") if one.get(name)})
    return found


def _time_meant(answered: Sequence[float], said: float) -> float | None:
    """Clients choose ids: of several answers with one the newest is meant that was there by then. Where there is one
    answer it is meant whatever the clocks say."""
    if len(answered) == 1:
        return answered[0]
    num_before = bisect_right(answered, said)
    return answered[num_before - 1] if num_before else None


def _asked(row: Mapping[str, Any]) -> Asked:
    return str(row.get("request_id")), row.get("key")


def _time(row: Mapping[str, Any]) -> float:
    """Before all others where it has none."""
    at = as_seconds(row.get("at"))
    return -math.inf if math.isnan(at) else at


def read_request_log(folder: Path, since: float | None = None) -> RequestLogFiles:
    """Raises nothing for what is not there, half written, or of another kind.

    since: seconds since the epoch; files that were written before hold nothing later, and are not opened.
    """
    notes = [] if folder.is_dir() else [f"there is no folder {folder}: no server has written a log there yet"]
    requests = _read(folder, "requests", since, notes)
    return RequestLogFiles(requests, sorted(_read(folder, "feedback", since, notes), key=_time), notes)


def _read(folder: Path, kind: str, since: float | None, notes: list[str]) -> list[Logged]:
    import pyarrow.parquet as pq

    found: list[Logged] = []
    broken: list[str] = []
    for path in sorted(folder.glob(f"{kind}-*.parquet")):
        if since is not None and _written_at(path.name) + _CLOCK_S < since:
            continue
        try:
            found += pq.ParquetFile(path).read().to_pylist()
        except Exception as error:  # noqa: BLE001 - gone by now, half copied, of another kind: the others are read
            broken.append(f"{path.name} ({type(error).__name__})")
    if broken:
        more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        notes.append(f"files that cannot be read are left out: {', '.join(broken[:_SHOWN])}{more}")
    rows = [one for one in found if _is_one(one)]
    if len(rows) < len(found):
        notes.append(
            f"{len(found) - len(rows)} rows of {kind} files are left out: no server has written them so"
        )
    return rows


def _is_one(row: Logged) -> bool:
    """As a server writes it, as far as it is there."""
    texts = all(isinstance(row.get(name), str | None) for name in _TEXTS)
    return texts and all(
        row.get(name) is None
        or (isinstance(row[name], list) and all(isinstance(one, str) for one in row[name]))
        for name in _LISTS
    )


def _written_at(name: str) -> float:
    """The moment in a file's name; one without it may hold anything."""
    try:
        moment = datetime.strptime(name.split("-")[1], "%Y%m%dT%H%M%S")
    except (IndexError, ValueError):
        return math.inf
    return moment.replace(tzinfo=UTC).timestamp()

"""What is kept of trials, read back: each digest against each other, pair by pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from raytrain.errors import DataError
from raytrain.serving.trials.log import KIND
from raytrain.serving.trials.section import TrialSection

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """One request, as both sides answered it."""

    production: Row
    candidate: Row | None
    """None where the candidate had no answer."""


@dataclass(frozen=True)
class Kept:
    """Of the latest trial of a name, and of the two digests that it compared last."""

    name: str
    mode: str
    horizon: int
    """How many pairs are compared, as the trial said before the first."""
    slower_by: float
    """Share by which times must surely be longer to count as slower."""
    rows: tuple[Row, ...]
    """By time."""
    num_left_out: int
    """Rows of the name that belong to another trial, or other digests."""

    def arm(self, arm: str) -> list[Row]:
        return [one for one in self.rows if one["arm"] == arm and one["error"] is None]

    def pairs(self) -> list[Pair]:
        """By time; whoever lacks production's answer is none."""
        sides: dict[str, dict[str, Row]] = defaultdict(dict)
        for one in self.rows:
            sides[one["pair"]][one["arm"]] = one
        return [
            Pair(one["production"], one.get("candidate"))
            for one in sides.values()
            if "production" in one and ("candidate" in one or one["production"]["error"] is not None)
        ]


def read_kept(folder: Path, name: str) -> Kept:
    """Raises DataError where no trial of this name has left a row there."""
    rows = sorted((one for one in read_rows(folder, KIND) if one["name"] == name), key=lambda one: one["at"])
    if not rows:
        raise DataError(
            f"nothing is known of a trial of {name}",
            why=f"{folder} holds no row of one",
            fix="put `trials:` into the serving config and let requests come, or name its folder with --log",
        )
    trial = rows[-1]["trial"]
    of_trial = [one for one in rows if one["trial"] == trial]
    spans = {arm: _span_of_last(of_trial, arm) for arm in ("production", "candidate")}
    kept = tuple(one for one in of_trial if spans[one["arm"]].has(one))
    first = kept[0]
    slower_by = first.get("slower_by") or TrialSection.model_fields["slower_by"].default  # older rows lack it
    return Kept(name, kept[-1]["mode"], first["pairs"], slower_by, kept, len(rows) - len(kept))


def read_rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Of all files of a kind; none where there is no such folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob(f"{kind}-*.parquet")):
        try:
            rows += pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read", why=str(error), fix="put it back as it was, or take it away"
            ) from error
    return rows


def first_of_callers(rows: Iterable[Row]) -> list[Row]:
    """One row a caller: what one caller asks hangs together, and counts once."""
    seen: dict[str, Row] = {}
    for one in rows:
        seen.setdefault(one["caller"], one)
    return list(seen.values())


@dataclass(frozen=True)
class _Span:
    """Of one side: the digest that answered last, and when it did first and last."""

    digest: str | None
    first: datetime | None = None
    last: datetime | None = None

    def has(self, row: Row) -> bool:
        """What failed before it was known who was to answer is the version's that answered before and after it."""
        if row["digest"] is not None or self.first is None or self.last is None:
            return bool(row["digest"] == self.digest)
        return bool(self.first <= row["at"] <= self.last)


def _span_of_last(rows: Sequence[Row], arm: str) -> _Span:
    own = [one for one in rows if one["arm"] == arm and one["digest"] is not None]
    if not own:
        return _Span(None)
    digest = own[-1]["digest"]
    times = [one["at"] for one in own if one["digest"] == digest]
    return _Span(digest, times[0], times[-1])

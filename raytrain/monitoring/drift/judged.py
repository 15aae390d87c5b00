"""What became of one window, and how it is told in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from raytrain.monitoring.drift.calibration import Judgement
from raytrain.monitoring.drift.picture import Bar, WordShare
from raytrain.monitoring.drift.rules import Breach


@dataclass(frozen=True)
class Judged:
    """A window with everything that is told of it. Times are seconds since the epoch; None where rows have none."""

    watch: str
    number: int
    """Windows since the reference was frozen; the first is 1."""
    begins_at: float | None
    ends_at: float | None
    num_rows: int
    judgement: Judgement | None
    """None where no level is asked for."""
    breaches: Sequence[Breach]
    digests: Mapping[str, int]
    """Rows by the digest of the model that answered, where the rows tell it."""
    bars: Mapping[str, Sequence[Bar]]
    words: Mapping[str, Sequence[WordShare]]
    means: Mapping[str, float]
    """Of each numeric feature that has a value in the window."""
    notes: Sequence[str]

    @property
    def alarms(self) -> list[str]:
        """Why this window is an alarm; nothing where it is none."""
        found = []
        if self.judgement is not None and self.judgement.is_drift:
            moved = ", ".join(one.name for one in self.judgement.moved)
            found.append(f"drift of {moved} (p = {self.judgement.p_value:.3g})")
        for one in self.breaches:
            if one.is_alarm:
                # What falls or changes tells its figures itself.
                told = f" is {one.value:.4g}, above {one.limit:g}" if one.rule == "fixed" else ""
                found.append(f"{one.feature}: {one.what}{told}")
        return found

    @property
    def warnings(self) -> list[str]:
        """Rules that are broken, but not by so much as to be an alarm."""
        return [
            f"{one.feature}: {one.what} is {one.value:.4g}, above {one.limit:g}"
            for one in self.breaches
            if not one.is_alarm
        ]

    @property
    def score(self) -> float:
        """Of the furthest feature, as a share of its threshold."""
        features = self.judgement.features if self.judgement is not None else ()
        return max((one.score for one in features), default=0.0)


@dataclass(frozen=True)
class Past:
    """An earlier window, as the timeline shows it."""

    number: int
    ends_at: float | None
    score: float
    is_alarm: bool
    digest: str


def told_time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

"""The version that was promoted last is watched online, and taken back where it answers worse than the one before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raytrain.errors import PlatformError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.spool import raise_alert
from raytrain.monitoring.learning.interaction import interactions_of
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.request_log import Logged, read_request_log
from raytrain.monitoring.times import as_seconds
from raytrain.monitoring.triggers.falls import Answered, Fall, answered_of, falls
from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.steps import Release, rolled_back
from raytrain.release.gate.record import PROMOTION_KIND
from raytrain.release.gate.recorded import kind_of_move
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.release.rollback import Rollback

RatedRow = tuple[Logged, Logged | None]


@dataclass(frozen=True)
class Guarded:
    """What was seen of the version in production."""

    version: str
    falls: tuple[Fall, ...]
    """Signal by signal, beside the version before."""
    rollback: Rollback | None = None

    @property
    def fell(self) -> list[Fall]:
        return [one for one in self.falls if one.fell]


def guard(loop: Loop, release: Release, pool: InteractionPool, now: float) -> Guarded | None:
    """None where nothing is to be watched: no promotion within `fall.hours`, or none with a version before it.

    pool: what was set aside there as poison has no voice: else who sends bad feedback could take any version back.

    Raises what a rollback raises; people are alerted in either case.
    """
    section, registry, name = loop.section.fall, release.desk.registry, release.name
    if section is None:
        return None
    state = registry.state(name)
    entry = state.moved.get(PRODUCTION)
    if entry is None or not _is_recent_promotion(release, entry, now, section.hours):
        return None
    before, version = entry.details["before"], entry.details["version"]
    if before in (None, version):
        return None
    since = entry.written_at
    rows = without_poison(read_request_log(loop.log).answers(), pool)
    was = _answers(rows, registry.find(f"{name}@{before}").digest, (-1.0, since), section.most_each)
    is_now = _answers(rows, registry.find(f"{name}@{version}").digest, (since, now), section.most_each)
    found = Guarded(version, tuple(falls(section, was, is_now)))
    return found if not found.fell else _taken_back(release, found, before)


def _taken_back(release: Release, found: Guarded, before: str) -> Guarded:
    why = "; ".join(one.told() for one in found.fell)
    name = f"{release.name}@{found.version}"
    version = Version.parse(found.version)
    try:
        done = rolled_back(release, f"its answers are worse: {why}"[:500], expected=version)
    except PlatformError as error:
        if release.desk.registry.state(release.name).aliases.get(PRODUCTION) != version:
            return found  # somebody was faster
        text = f"{why}\nIt could not be taken back: {error.what}\nwhy: {error.why}\nfix: {error.fix}"
        _tell(release, found, f"{name} answers worse, and is still in production", text, "in production")
        raise
    text = f"{why}\n{release.name}@{PRODUCTION} is {done.after} again."
    _tell(release, found, f"{name} answers worse than {before}: taken back", text, "taken back")
    return Guarded(found.version, found.falls, done)


def _tell(release: Release, found: Guarded, title: str, text: str, state: str) -> None:
    raise_alert(
        Alert(
            kind="serving_health",
            subject=f"{release.name}@{found.version}",
            severity="critical",
            title=title,
            text=text,
            time=release.desk.clock(),
            details={one.signal: one.told() for one in found.fell},
            state=state,
        )
    )


def _is_recent_promotion(release: Release, entry: Entry, now: float, hours: float) -> bool:
    age = now - entry.written_at
    return age <= hours * 3600 and kind_of_move(release.desk.registry, release.name, entry) == PROMOTION_KIND


def without_poison(rows: list[RatedRow], pool: InteractionPool) -> list[RatedRow]:
    """Requests with what was said of them, but for those that were set aside."""
    ids = [_ids(*row) for row in rows]
    bad = pool.set_aside(one for found in ids for one in found)
    return [row for row, found in zip(rows, ids, strict=True) if not bad & found]


def _ids(request: Logged, feedback: Logged | None) -> set[str]:
    try:
        return {one.id for one in interactions_of(request, feedback)}
    except (KeyError, TypeError, ValueError, IndexError):
        return set()  # a row that is none of a request log's


def _answers(
    rows: Sequence[RatedRow], digest: str, between: tuple[float, float], most_each: int
) -> list[Answered]:
    """Of one version, in the order of time; of one user so many thumbs at most."""
    found: list[Answered] = []
    thumbs: Counter[str] = Counter()
    for request, feedback in sorted(rows, key=lambda row: as_seconds(row[0].get("at"))):
        at, user = as_seconds(request.get("at")), request.get("user")
        if request.get("digest") != digest or not between[0] <= at <= between[1]:
            continue
        one = answered_of(request, feedback, at)
        if user is not None and one.approval is not None:
            thumbs[user] += 1
            one = one if thumbs[user] <= most_each else replace(one, approval=None)
        found.append(one)
    return found

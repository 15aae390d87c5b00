"""A candidate in staging beside production, until the serving config's trial has said what it can say."""

from __future__ import annotations

import time as clock
from collections.abc import Callable

from raytrain.errors import DataError, RefusedError
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline.loop.chain_record import candidate_of
from raytrain.pipeline.loop.fresh_rows import RowsPlan
from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.steps import Release
from raytrain.release.registry.state import PRODUCTION
from raytrain.release.registry.versions import Version
from raytrain.runs.records import Records
from raytrain.serving.trials.comparison import OnlineComparison, compare_online
from raytrain.serving.trials.rows import Kept, read_kept, read_rows
from raytrain.serving.trials.sides import ARMS

_STAGING = "staging"


def wait_for_trial(
    loop: Loop,
    release: Release,
    plan: RowsPlan,
    version: Version,
    tell: Callable[[str], None],
    still: Callable[[], None],
) -> OnlineComparison:
    """By the log alone, so that who is killed while he waits goes on waiting: the hours are those of one call. Of a
    shadow or a canary, as the serving config has it.

    still: raises where there is nothing to wait for any more; asked before each look.
    Raises DataError where the pairs that the serving config asks for have not come in time, RefusedError where
    somebody has put another version into staging.
    """
    section, registry = loop.section.canary, release.desk.registry
    assert section is not None, "asked before"
    candidate = registry.find(f"{release.name}@{version}").digest
    production = plan.content["production"]["digest"]
    since, told = clock.time(), -1
    while True:
        still()
        _refuse_retaken(release, version)
        found, why = _compared(loop, release.name, (production, candidate), clock.time())
        if found is not None and found.is_complete:
            return found
        num_pairs = 0 if found is None else found.num_pairs
        is_settling = found is not None and found.waits_until is not None
        if num_pairs != told:
            told = num_pairs
            tell(f"the trial has {_size(found)}" + (f": {why}" if why else ""))
        if clock.time() > since + section.hours * 3600 and not is_settling:
            raise DataError(
                f"the trial of {release.name}@{version} has not come to an end",
                why=f"in {section.hours:g} h {_size(found)} came; {why or 'the serving config asks for more'}",
                fix=f"serve with `trials: [{{name: {release.name}, candidate: {_STAGING}}}]`, a greater share, or "
                "fewer pairs; or give it more canary.hours",
            )
        clock.sleep(section.every_s)


def lost_trial(loop: Loop, release: Release, records: Records, now: float) -> str | None:
    """The candidate, of whichever trial in the log was the last, that is surely worse than what is in production: an
    order's own by the order's id, which orders nothing, and another by its version. None where there is none, or the
    order still decides on it."""
    try:
        kept = read_kept(loop.log, release.name)
        found = _comparison(loop, kept, now)
    except DataError:
        return None
    production, candidate = _sides(kept)
    state = release.desk.registry.state(release.name)
    digests = {version: one.digest for version, one in state.versions.items()}
    in_production = state.aliases.get(PRODUCTION)
    if in_production is None or digests[in_production] != production:
        return None
    if not found.is_complete or not found.is_worse:
        return None
    version = next((str(one) for one, digest in digests.items() if digest == candidate), str(candidate))
    for one in TriggerStore(records.engine).orders(loop.triggers.triggers, limit=100):
        if candidate_of(one.order.id, records) == version:
            return None if one.is_open else one.order.id
    return f"{release.name}@{version}"


def _size(found: OnlineComparison | None) -> str:
    return "0 pairs" if found is None else found.size


def _sides(kept: Kept) -> tuple[str | None, str | None]:
    """Digests of what was in production and of the candidate."""
    first = {arm: next((one["digest"] for one in kept.rows if one["arm"] == arm), None) for arm in ARMS}
    return first["production"], first["candidate"]


def _refuse_retaken(release: Release, version: Version) -> None:
    now = release.desk.registry.state(release.name).aliases.get(_STAGING)
    if now != version:
        raise RefusedError(
            f"the trial of {release.name}@{version} cannot come to its end",
            why=f"{now or 'nothing'} is in staging by now, and is what is tried",
            fix="nothing: the next order learns from the same rows",
        )


def _compared(
    loop: Loop, name: str, digests: tuple[str, str], now: float
) -> tuple[OnlineComparison | None, str]:
    """None, and why, where the log knows nothing of these two."""
    try:
        kept = read_kept(loop.log, name)
        found = _comparison(loop, kept, now)
    except DataError as error:
        return None, error.why
    if _sides(kept) != digests:
        return None, "the newest rows are of other versions"
    return found, "" if found.waits_until is None else "an ingress may still write some of before the last"


def _comparison(loop: Loop, kept: Kept, now: float) -> OnlineComparison:
    feedback = (
        read_rows(loop.log, "feedback") if kept.mode == "canary" else ()
    )  # of shadows nobody sees an answer
    return compare_online(kept, feedback, loop.policy.contract.overall, now)

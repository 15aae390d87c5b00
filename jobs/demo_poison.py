"""What the demo shows of learning: some say that right answers are wrong, and teach something else. Nobody learns it,
and it does not count against the version that answered."""

from __future__ import annotations

import time
from collections import Counter

from jobs.demo_watch import SETTLE_S
from jobs.month_traffic import Clock, Traffic, poisoned
from raytrain.errors import EndpointError
from raytrain.monitoring.learning.collect import Collected, collect
from raytrain.monitoring.learning.known import known_rows
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.learning.section import LearningSection
from raytrain.pipeline.loop.section import Loop
from raytrain.training.spec import RunSpec

NUM_POISONED = 18
_SEED = 1


def show_poison(loop: Loop, spec: RunSpec, url: str, pool: InteractionPool) -> None:
    """spec: of what is in production. Raises EndpointError where a request fails, or nothing is set aside."""
    traffic = Traffic(url, loop.section.release, Clock(), lambda _: None)
    given = traffic.send(poisoned(NUM_POISONED, _SEED), 0.0)
    time.sleep(SETTLE_S)
    if traffic.failed:
        raise EndpointError(
            f"{len(traffic.failed)} requests failed",
            why=traffic.failed[0],
            fix="this is a fault of raytrain, please report it",
        )
    section = loop.section.learning or LearningSection()
    found = collect(loop.log, pool, known_rows(spec.data), section, loop.section.release)
    show_collected(found, len(given))


def show_collected(found: Collected, num_sent: int) -> None:
    """What became of so many wrong corrections. Raises EndpointError where none was seen to be wrong."""
    reasons = list(found.quarantined.values())
    if not reasons:
        raise EndpointError(
            f"none of {num_sent} wrong corrections was set aside",
            why=f"of {found.num_answers} answers {found.num_new} were taken for good ones; left out: {found.left_out}",
            fix="this is a fault of raytrain, please report it",
        )
    print(f"{len(reasons)} of {num_sent} wrong corrections are set aside, for a person to look at:")
    for kind, num in Counter(one.partition(":")[0] for one in reasons).items():
        print(f"  {num} times {next(one for one in reasons if one.startswith(kind))[:110]}")

"""A name in production that nothing answers as: refused, or without room. The rest answers on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from served_releases import Releases, damaged
from test_replica import Start, asked, expected, production, releases, start, wait_for  # noqa: F401

from raytrain.errors import StorageError
from raytrain.serving.adapters.opening import Door, Servable
from raytrain.serving.backend import Readiness, RefusedModel, Undecided
from raytrain.serving.replica import Replica

pytestmark = pytest.mark.whole


def readiness(replica: Replica) -> Readiness:
    return asyncio.run(replica.readiness())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each version's weights were read, by its name."""
    counted: Counter[str] = Counter()
    read = Servable.read

    def read_and_count(self: Servable) -> object:
        counted[self.name] += 1
        return read(self)

    monkeypatch.setattr(Servable, "read", read_and_count)
    return counted


def test_a_first_release_that_is_refused_is_not_ready_until_another_takes_its_place(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
) -> None:
    replica = start()
    digest = releases.release("dates", "1.0.0", seed=3)
    replica.routes.stop()
    releases.promote("dates@1.0.0")
    place = Path(releases.registry.store.bundle_place("dates", digest.removeprefix("sha256:")))
    damaged(place / "adapter" / "adapter_model.safetensors")
    replica.routes.refresh()
    told = readiness(replica)
    assert not told.is_ready and "dates is in production and nothing answers as it" in told.problems
    assert any(one.startswith("dates@production: ") and "adapter_model" in one for one in told.problems)
    with pytest.raises(RefusedModel):
        asked(replica, "dates")
    assert asked(replica, "sums").served.digest == next(iter(releases.adapters)), "others answer on"
    releases.release("dates", "1.1.0", seed=4)
    releases.promote("dates@1.1.0")
    replica.routes.refresh()
    told = readiness(replica)
    assert told.is_ready and not any("nothing answers" in one for one in told.problems)


def test_a_first_release_that_cannot_be_read_is_the_registry_s_fault(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: Door, reference: str) -> Servable:
        raise StorageError(f"cannot read {reference}", why="nobody answers", fix="wait")

    replica = start()
    replica.routes.stop()
    releases.release("dates", "1.0.0", seed=3)
    releases.promote("dates@1.0.0")
    with monkeypatch.context() as patch:
        patch.setattr(Door, "admit", fails)
        replica.routes.refresh()
    told = readiness(replica)
    assert told.is_ready and any("cannot read dates@production" in one for one in told.problems)
    with pytest.raises(Undecided):
        asked(replica, "dates")
    replica.routes.refresh()
    assert readiness(replica).problems == () and production(replica, "dates")


def test_a_release_that_does_not_fit_throws_nobody_out_and_comes_once_there_is_room(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    reads: Counter[str],
) -> None:
    for name, rank, alias in (("wide", 150, "production"), ("other", 64, "staging")):
        releases.release(name, "1.0.0", seed=rank, rank=rank)
        releases.promote(f"{name}@1.0.0", alias)
    large = releases.release("large", "1.0.0", seed=5, rank=120)
    narrow = releases.release("wide", "1.1.0", seed=6, rank=4)
    replica = start(engine={"adapter_mib": 1})  # 256 ranks
    asked(replica, "other@staging")
    releases.promote("large@1.0.0")
    wait_for(lambda: "large@production" in replica.routes.table.refused)
    time.sleep(0.5)  # some looks at the registry
    assert replica.residents.evictions == 0 and reads["large"] == 1 and replica.routes.alarms == 1
    told = readiness(replica)
    assert not told.is_ready and "large is in production and nothing answers as it" in told.problems
    assert any("154 of 256 ranks" in one or "218 of 256 ranks" in one for one in told.problems)
    with pytest.raises(Undecided):
        asked(replica, "large")
    assert asked(replica, "other@staging").tokens and reads["other"] == 1
    releases.promote("wide@1.1.0")
    wait_for(lambda: production(replica, "large") == large and production(replica, "wide") == narrow)
    wait_for(lambda: readiness(replica).is_ready)
    assert asked(replica, "large").tokens == expected(releases, large)


def test_a_replica_that_has_no_room_for_all_in_production_starts_and_says_so(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
) -> None:
    for seed, name in enumerate(("one", "two")):
        releases.release(name, "1.0.0", seed=seed, rank=150)
        releases.promote(f"{name}@1.0.0")
    replica = start(engine={"adapter_mib": 1})
    told = readiness(replica)
    assert not told.is_ready and len(told.production) == 2
    assert sum("nothing answers as it" in one for one in told.problems) == 1
    assert asked(replica, "sums").served.digest == next(iter(releases.adapters))


def test_a_trial_s_candidate_that_does_not_fit_throws_nobody_out(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    reads: Counter[str],
) -> None:
    for name, rank, alias in (("wide", 150, "production"), ("other", 64, "staging")):
        releases.release(name, "1.0.0", seed=rank, rank=rank)
        releases.promote(f"{name}@1.0.0", alias)
    releases.release("sums", "1.2.0", seed=5, rank=120)
    replica = start(
        engine={"adapter_mib": 1}, trials=[{"name": "sums", "mode": "canary", "share": 0.5}]
    )  # 256 ranks
    asked(replica, "other@staging")
    before = reads["sums"]
    releases.promote("sums@1.2.0", "staging")
    wait_for(lambda: "cannot be loaded" in replica.trials.states()[0].why)
    time.sleep(0.5)  # some looks at it
    assert replica.residents.evictions == 0 and reads["sums"] == before + 1
    assert readiness(replica).is_ready and asked(replica, "other@staging").tokens

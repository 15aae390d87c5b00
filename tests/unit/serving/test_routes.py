"""What takes long to be read keeps nothing else from being followed, and is held against what is known by then."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from served_releases import Releases
from test_replica import Start, asked, production, releases, start, wait_for  # noqa: F401

from raytrain.errors import StorageError
from raytrain.release.registry.following import Following
from raytrain.release.registry.state import State
from raytrain.serving import replica as replicas
from raytrain.serving import routes
from raytrain.serving.adapters.opening import Door, Servable
from raytrain.serving.replica import Replica
from raytrain.serving.table import Table

pytestmark = pytest.mark.whole


@dataclass
class Slow:
    """Bundles that are verified, and then do not come before a test lets them."""

    held: dict[str, threading.Event] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)

    def hold(self, reference: str) -> None:
        self.held[reference] = threading.Event()
        self.begun.discard(reference)

    def wait_at(self, reference: str) -> None:
        if reference in self.held:
            self.begun.add(reference)
            assert self.held[reference].wait(60)

    def let(self, reference: str) -> None:
        self.held.pop(reference).set()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow, admit = Slow(), Door.admit

    def admit_slowly(door: Door, reference: str) -> Servable:
        admitted = admit(door, reference)
        slow.wait_at(reference)
        return admitted

    monkeypatch.setattr(Door, "admit", admit_slowly)
    yield slow
    for reference in list(slow.held):
        slow.let(reference)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Each alias and version that ever stood in a table."""
    shown: list[tuple[str, str]] = []
    show = routes.Routes._show

    def show_and_keep(self: routes.Routes, table: Table) -> None:
        shown.extend((reference, one.version) for reference, one in table.aliases.items())
        show(self, table)

    monkeypatch.setattr(routes.Routes, "_show", show_and_keep)
    return shown


def problems(replica: Replica) -> list[str]:
    return list(asyncio.run(replica.readiness()).problems)


def test_a_bundle_that_takes_long_is_no_registry_that_does_not_answer(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "_SILENT_AFTER_S", 0.2)
    monkeypatch.setattr(routes, "_READ_WITHIN_S", 1.5)
    first, second = releases.adapters
    third = releases.release("sums", "1.2.0", seed=3)
    releases.promote("sums@1.1.0")
    releases.promote("sums@1.2.0")
    replica = start()
    fourth = releases.release("sums", "1.3.0", seed=4)
    slow.hold("sums@production")
    releases.promote("sums@1.3.0")
    wait_for(lambda: "sums@production" in slow.begun)
    time.sleep(0.4)
    assert not problems(replica)
    assert asked(replica, "sums@1.0.0").served.digest == first, "a version that nobody asked for before"
    releases.promote("sums@1.1.0", "dev")
    wait_for(lambda: "sums@dev" in replica.routes.table.aliases)
    (told,) = wait_for(lambda: problems(replica))
    assert told.startswith("sums@production: its bundle has been read for")
    readiness = asyncio.run(replica.readiness())
    assert readiness.is_ready and readiness.production == {"sums": third}
    assert asked(replica, "sums").served.digest == third
    slow.let("sums@production")
    wait_for(lambda: production(replica) == fourth and not problems(replica))
    assert asked(replica, "sums@dev").served.digest == second


def test_a_journal_that_does_not_come_is_told_soon(
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "_SILENT_AFTER_S", 0.2)
    replica = start()
    states, comes = Following.states, threading.Event()

    def hang(self: Following, names: list[str] | None) -> dict[str, State]:
        assert comes.wait(60)
        return states(self, names)

    monkeypatch.setattr(Following, "states", hang)
    (told,) = wait_for(lambda: problems(replica))
    assert told.startswith("the registry cannot be read: it has not answered for")
    comes.set()
    wait_for(lambda: not problems(replica))


def test_no_promotion_waits_for_another_alias(releases: Releases, start: Start, slow: Slow) -> None:  # noqa: F811
    replica = start()
    first, second = releases.adapters
    slow.hold("sums@staging")
    releases.promote("sums@1.1.0", "staging")
    wait_for(lambda: "sums@staging" in slow.begun)
    other = releases.release("dates", "1.0.0", seed=3)
    releases.promote("dates@1.0.0")
    wait_for(lambda: production(replica, "dates") == other)
    releases.promote("sums@1.1.0")
    wait_for(lambda: production(replica) == second)
    third = releases.release("sums", "1.2.0", seed=4)
    releases.promote("sums@1.2.0")
    wait_for(lambda: production(replica) == third)
    releases.roll_back("sums")
    wait_for(lambda: production(replica) == second)
    assert asked(replica, "sums").served.digest == second and asked(replica, "dates").served.digest == other
    assert "sums@staging" not in replica.routes.table.aliases
    slow.let("sums@staging")
    wait_for(lambda: "sums@staging" in replica.routes.table.aliases)
    assert asked(replica, "sums@staging").served.digest == second
    assert not problems(replica) and replica.routes.alarms == 0
    assert first not in production_digests(replica)


def production_digests(replica: Replica) -> set[str]:
    return {one.digest for one in replica.routes.table.production.values()}


def test_what_an_alias_has_left_while_it_was_read_is_not_shown(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    slow: Slow,
    shown: list[tuple[str, str]],
) -> None:
    replica = start()
    releases.release("sums", "1.2.0", seed=3)
    slow.hold("sums@staging")
    releases.promote("sums@1.1.0", "staging")
    wait_for(lambda: "sums@staging" in slow.begun)
    releases.promote("sums@1.2.0", "staging")
    time.sleep(0.3)  # until it is known
    slow.let("sums@staging")
    wait_for(lambda: ("sums@staging", "1.2.0") in shown)
    assert ("sums@staging", "1.1.0") not in shown
    assert replica.routes.table.aliases["sums@staging"].version == "1.2.0"


def test_what_was_verified_before_a_key_was_revoked_is_not_shown(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    slow: Slow,
    shown: list[tuple[str, str]],
) -> None:
    replica = start()
    slow.hold("sums@staging")
    releases.promote("sums@1.1.0", "staging")
    wait_for(lambda: "sums@staging" in slow.begun)
    (key,) = releases.ring.known()
    releases.ring.revoke(key.id, "lost on a train")
    wait_for(lambda: production(replica) is None)
    slow.let("sums@staging")
    wait_for(lambda: "sums@staging" in replica.routes.table.refused)
    assert ("sums@staging", "1.1.0") not in shown


def test_a_version_that_was_verified_before_a_key_was_revoked_does_not_count_on(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it would where the registry then cannot be asked."""
    replica = start()
    replica.routes.stop()
    admit = Door.admit

    def admit_and_revoke(door: Door, reference: str) -> Servable:
        admitted = admit(door, reference)
        monkeypatch.setattr(Door, "admit", admit)
        (key,) = releases.ring.known()
        releases.ring.revoke(key.id, "lost on a train")
        replica.routes.refresh()
        return admitted

    monkeypatch.setattr(Door, "admit", admit_and_revoke)
    replica.routes.version("sums@1.0.0")
    place = Path(releases.registry.place)
    place.rename(place.with_name("away"))
    place.write_text("no folder any more")
    replica.routes.refresh()
    with pytest.raises(StorageError, match="nobody can say"):
        replica.routes.version("sums@1.0.0")


def test_a_bundle_that_hangs_is_not_waited_for_at_the_end(
    releases: Releases,  # noqa: F811
    start: Start,  # noqa: F811
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas, "_REGISTRY_ENDS_S", 0.2)
    before = set(threading.enumerate())
    replica = start()
    slow.hold("sums@staging")
    releases.promote("sums@1.1.0", "staging")
    wait_for(lambda: "sums@staging" in slow.begun)
    replica.close()
    assert any(one.name == "bundles" for one in set(threading.enumerate()) - before)
    slow.let("sums@staging")
    wait_for(lambda: not {one.name for one in set(threading.enumerate()) - before} & {"bundles", "registry"})

"""A registry whose service goes away at one of its requests, and stays away until it is back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from object_server import Failure, Proxy
from registry_contract import V2, faults_of, release, script, state_told

from raytrain.errors import StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_hex, read_manifest

FAILURES: tuple[Failure, ...] = ("refused", "lost answer", "reset")


def first_steps(registry: Registry, ring: KeyRing, bundles: list[Path], *, done: int = 0) -> None:
    """A version, and production, without those that are done."""
    for step in script(registry, ring, bundles)[done:2]:
        step()


def check_old_or_new(
    registry: Registry, ring: KeyRing, bundles: list[Path], service: Proxy, point: int, expected: list[object]
) -> None:
    """The service goes away at request `point` of the first steps; afterwards it goes on as `check_goes_on` says."""
    service.plan(point, FAILURES[point % 3], times=1_000_000)
    with pytest.raises(StorageError) as told:
        first_steps(registry, ring, bundles)
    service.plan(None)
    assert told.value.exit_code == 4
    assert service.endpoint in told.value.what, told.value
    assert "run" in told.value.fix, told.value
    check_goes_on(registry, ring, bundles, point, expected)


def check_goes_on(
    registry: Registry, ring: KeyRing, bundles: list[Path], point: int, expected: list[object]
) -> None:
    """It is empty or in one of the states that are expected after each of the first steps, and the rest of them goes
    through. point: of which every second time what is left is deleted first."""
    done = expected.index(state_told(registry)) + 1 if registry.names() else 0
    if point % 2:
        registry.delete(registry.orphans(), grace_s=0)
        assert registry.orphans() == []
    first_steps(registry, ring, bundles, done=done)
    assert state_told(registry) == expected[-1], f"point {point}"
    assert faults_of(registry, ring) == []


def prepared(
    registry: Registry, ring: KeyRing, bundles: list[Path], num_steps: int
) -> list[Callable[[], object]]:
    """The steps that are left once the first so many are done."""
    steps = script(registry, ring, bundles)
    for step in steps[:num_steps]:
        step()
    return steps[num_steps:]


def check_tag_and_withdraw(
    fresh: Callable[[], tuple[Registry, Registry]], service: Proxy, ring: KeyRing, bundles: list[Path]
) -> int:
    """The service goes away at each request of a tag, then of a withdrawal: both are told, and stand in the journal or
    do not. fresh: each time a registry in which nothing is, twice: for what goes well, and for who meets the outage and
    is to give up soon. Returns how often it went away."""
    num_outages = 0
    for num_steps in (4, 5):
        point, expected = 1, None
        while True:
            registry, hasty = fresh()
            (step, *_) = prepared(registry, ring, bundles, num_steps)
            met = script(hasty, ring, bundles)[num_steps]
            before = state_told(registry)
            service.plan(None if expected is None else point, FAILURES[point % 3], times=1_000_000)
            if expected is None:
                met()
                total = service.count
                expected = state_told(registry)
                assert expected != before and total >= 2
                continue
            with pytest.raises(StorageError) as told:
                met()
            service.plan(None)
            assert told.value.exit_code == 4 and service.endpoint in told.value.what, told.value
            found = state_told(registry)
            assert found in (before, expected), f"request {point} of {total}"
            if found == before:
                step()
            assert state_told(registry) == expected and faults_of(registry, ring) == []
            num_outages, point = num_outages + 1, point + 1
            if point > total:
                break
    return num_outages


def check_gc(
    fresh: Callable[[], tuple[Registry, Registry]],
    service: Proxy,
    ring: KeyRing,
    bundles: list[Path],
    stride: int = 1,
) -> int:
    """The service goes away at a request of a gc, each in turn: nothing that an entry names is touched, and what was
    half deleted is deleted by the next one, or comes whole with the version that needs it. Returns how often it went
    away."""
    digest = digest_hex(read_manifest(Location(str(bundles[1]))).digest)
    point, total, num_outages = 0, 0, 0
    while point <= total:
        registry, hasty = fresh()
        prepared(registry, ring, bundles, 2)
        assert registry.store.put_bundle(
            "sums", digest, bundles[1]
        )  # whoever put it was killed before its entry
        before = state_told(registry)
        service.plan(point or None, FAILURES[point % 3], times=1_000_000)
        if not point:
            assert [one.digest for one in hasty.delete(hasty.orphans(), grace_s=0)] == [digest]
            total, point = service.count, 1
            assert total >= 4
            continue
        with pytest.raises(StorageError) as told:
            hasty.delete(hasty.orphans(), grace_s=0)
        service.plan(None)
        assert told.value.exit_code == 4 and service.endpoint in told.value.what, told.value
        assert state_told(registry) == before and faults_of(registry, ring) == [], (
            f"request {point} of {total}"
        )
        if point % 2:
            registry.delete(registry.orphans(), grace_s=0)
            assert registry.orphans() == []
        release(registry, ring, V2, bundles[1])
        assert faults_of(registry, ring) == [] and registry.orphans() == []
        num_outages, point = num_outages + 1, point + stride
    return num_outages

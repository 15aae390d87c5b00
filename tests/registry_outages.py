"""A registry whose service goes away at one of its requests, and stays away until it is back."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_server import Failure, Proxy
from registry_contract import faults_of, script, state_told

from raytrain.errors import StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry

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

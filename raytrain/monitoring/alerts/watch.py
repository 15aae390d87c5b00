"""A look at everything that is watched, and the delivery of what it found. One pass at a time; commands repeat it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raytrain.errors import PlatformError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.observers.drift import DriftObserver
from raytrain.monitoring.alerts.observers.endpoints import EndpointObserver
from raytrain.monitoring.alerts.observers.gate import GateObserver
from raytrain.monitoring.alerts.observers.month import MonthObserver
from raytrain.monitoring.alerts.observers.observer import Observer
from raytrain.monitoring.alerts.observers.runs import RunObserver
from raytrain.monitoring.alerts.observers.signatures import SignatureObserver
from raytrain.monitoring.alerts.post import Passed, Post
from raytrain.monitoring.alerts.section import WatchSection
from raytrain.monitoring.alerts.spool import raise_alert
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import open_store
from raytrain.runs.records import Records
from raytrain.storage.home import raytrain_home

_KEEP_S = 90 * 86400.0
"""So long alerts are kept that are dealt with."""


@dataclass(frozen=True)
class Watched:
    """What one pass came to."""

    raised: int
    blind: Sequence[str]
    """What could not be looked at, and why."""
    passed: Passed


@dataclass(frozen=True)
class Watch:
    post: Post
    observers: Sequence[Observer]

    def pass_once(self, is_over: Callable[[], bool] = lambda: False) -> Watched:
        """Raises StorageError where the records database cannot be used; what was raised until then is kept."""
        store, num_raised, blind = self.post.store, 0, []
        for observer in self.observers:
            if is_over():
                break
            now = self.post.now()
            seen, looked_at = store.seen(observer.name)
            if looked_at is not None and 0 <= now - looked_at < observer.every_s:
                continue
            try:
                look = observer.look(seen, now)
            except PlatformError as error:
                blind.append(f"{observer.name}: {error.line}")
                raise_alert(_blind(observer.name, error, now))
                continue
            fresh = store.unknown(look.alerts)
            raised = [raise_alert(one) for one in fresh]
            if all(raised):  # what cannot be written down is found again by the next look
                store.see(observer.name, look.seen, now)
            num_raised += sum(raised)
        passed = self.post.deliver(is_over)
        store.forget_before(self.post.now() - _KEEP_S)
        return Watched(num_raised, tuple(blind), passed)


def observers_of(section: WatchSection, records: Records, ring: KeyRing) -> list[Observer]:
    """Raises ConfigError where the registry's place is none."""
    is_named = section.registry is not None
    registry = Registry(open_store(section.registry or str(raytrain_home() / "registry")))
    found: list[Observer] = [RunObserver(records), DriftObserver(records)] if section.runs else []
    found.append(GateObserver(registry, must_be_there=is_named))
    if section.audit_every_s:
        found.append(SignatureObserver(registry, ring, section.audit_every_s, must_be_there=is_named))
    found += [EndpointObserver(one) for one in section.endpoints]
    found += [] if section.month is None else [MonthObserver(records, section.month)]
    return found


def _blind(name: str, error: PlatformError, now: float) -> Alert:
    return Alert(
        kind="watching",
        subject=name,
        severity="warning",
        title=f"{name} cannot be watched",
        text=f"{error.what}\nwhy: {error.why}\nfix: {error.fix}",
        time=now,
    )

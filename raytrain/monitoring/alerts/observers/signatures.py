"""What does not verify in a registry: bundles, signatures, records, journals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.observers.gate import check_there
from raytrain.monitoring.alerts.observers.observer import Look
from raytrain.release.gate.audit import audit
from raytrain.release.keys import KeyRing
from raytrain.release.registry.findings import Fault
from raytrain.release.registry.registry import Registry


class SignatureObserver:
    """See `Observer`. Each look reads all of the registry, and tells of a fault again for as long as it is there."""

    name = "signatures"

    def __init__(self, registry: Registry, ring: KeyRing, every_s: float, *, must_be_there: bool) -> None:
        self._registry, self._ring, self._must_be_there = registry, ring, must_be_there
        self.every_s = every_s

    def look(self, seen: Any, now: float) -> Look:  # noqa: ARG002 - what was found before may be wrong still
        check_there(self._registry, must_be_there=self._must_be_there)
        faults = [fault for _, found in audit(self._registry, self._ring) for fault in found]
        return Look(alerts_of_faults(faults, self._registry.place, now), {"faults": len(faults)})


def alerts_of_faults(faults: Sequence[Fault], place: str, now: float) -> list[Alert]:
    """One of each thing, with all that is wrong with it. Pure."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in faults:
        found.setdefault((one.name, one.thing), []).append(one.what)
    return [_alert(name, thing, "\n".join(wrong), place, now) for (name, thing), wrong in found.items()]


def _alert(name: str, thing: str, wrong: str, place: str, now: float) -> Alert:
    return Alert(
        kind="signature",
        subject=f"{name} {thing}",
        severity="critical",
        title=f"{name}: {thing} does not verify",
        text=f"{wrong}\nlook: raytrain registry audit; find out who wrote there before it is served again",
        time=now,
        details={"registry": place, "name": name, "what": thing},
        state=wrong,
    )

"""Versions that the gate held, and those that somebody let through all the same: by the records in the registry."""

from __future__ import annotations

import json
from typing import Any

from raytrain.errors import ConfigError, PlatformError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.observers.observer import Look
from raytrain.release.gate.record import PROMOTION_KIND, RECORD_FILE
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import Shelf, shelf_of
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_hex, read_manifest

_SHORT = 16
"""Digits of a digest that are remembered."""


class GateObserver:
    """See `Observer`. A record says what was decided on, so that the same decision on the same facts is told once."""

    name, every_s = "gate", 60.0

    def __init__(self, registry: Registry, *, must_be_there: bool) -> None:
        self._registry, self._must_be_there = registry, must_be_there

    def look(self, seen: Any, now: float) -> Look:
        check_there(self._registry, must_be_there=self._must_be_there)
        known: dict[str, list[str]] = dict(seen) if isinstance(seen, dict) else {}
        is_first, alerts = not isinstance(seen, dict), []
        for name in self._registry.names_there():
            shelf = shelf_of(self._registry, name, "records")
            told = set(known.get(name, ()))
            for digest in shelf.store.bundles(shelf.name):
                if digest[:_SHORT] in told:
                    continue
                record = None if is_first else _record(shelf, digest)
                if record is None and not is_first:
                    continue  # it is being written; the next look has it whole
                told.add(digest[:_SHORT])
                alert = None if record is None else alert_of_record(record, digest, now)
                alerts += [] if alert is None else [alert]
            known[name] = sorted(told)
        return Look(alerts, known)


def alert_of_record(record: dict[str, Any], digest: str, now: float) -> Alert | None:
    """None for what was let through by what it showed, and for what is no record of a promotion."""
    if "verdict" not in record:
        return None
    who = f"{record.get('name')}@{record.get('version')}"
    target, verdict, override = record.get("target"), record.get("verdict"), record.get("override")
    if record.get("released") and not override:
        return None
    held = [one for one in record.get("rules", ()) if one.get("status") != "passed"]
    told = [
        f"{one.get('name')} {one.get('status')}: {one.get('value')}, asked {one.get('limit')}; {one.get('why')}"
        for one in held
    ]
    if override:
        title = f"{who} became {target} although the gate said {verdict}"
        state = f"override {digest}"  # none is a repetition of another
        told.insert(0, f"override by {override.get('who')} as {override.get('role')}: {override.get('why')}")
    else:
        title = f"{verdict}: {who} does not become {target}"
        state = f"{verdict} by {sorted(str(one.get('name')) for one in held)}"
        told += dict.fromkeys(f"to do: {one.get('change')}" for one in held if one.get("change"))
    return Alert(
        kind="gate_refusal",
        subject=f"{who} to {target}",
        severity="warning" if verdict == "ESCALATE" and not override else "critical",
        title=title,
        text="\n".join(told) or "its record names no rule",
        time=now,
        details={"version": who, "alias": str(target), "verdict": str(verdict), "record": digest},
        state=state,
        event=digest,
    )


def _record(shelf: Shelf, digest: str) -> dict[str, Any] | None:
    """What is written there; {} for another kind of record, None where it is not whole yet."""
    if shelf.store.seal(shelf.name, digest)[1] is None:
        return None  # the signature comes last
    place = shelf.store.open_bundle(shelf.name, digest)
    try:
        manifest = read_manifest(Location(str(place)))
        if manifest.kind != PROMOTION_KIND or digest_hex(manifest.digest) != digest_hex(digest):
            return {}
        found = json.loads((place / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, PlatformError):
        return {}  # `raytrain registry audit` and the observer of signatures say what is wrong with it
    return found if isinstance(found, dict) else {}


def check_there(registry: Registry, *, must_be_there: bool) -> None:
    """Raises ConfigError where somebody has named a place at which nothing is."""
    if must_be_there and not registry.store.is_there():
        raise ConfigError(
            f"there is no registry at {registry.place}",
            why="nothing is there",
            fix="check watch.registry of the alerts file, and that its folder is mounted",
        )

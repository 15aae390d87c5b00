"""Windows that `raytrain watch` found to have drifted: by the events of its runs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.observers.observer import Look
from raytrain.monitoring.alerts.observers.runs import LOOK_BACK_S
from raytrain.runs import tables
from raytrain.runs.records import Records
from raytrain.storage.database import translated_database_errors

DRIFT_EVENT = "drift"
"""Kind of the event; its data has `window` (the number), `report` (the digest) and `alarms` (sentences)."""


class DriftObserver:
    """See `Observer`."""

    name, every_s = "drift", 0.0

    def __init__(self, records: Records) -> None:
        self._records = records

    def look(self, seen: Any, now: float) -> Look:
        if not isinstance(seen, dict):
            return Look((), {"until": now, "from": now})
        first = float(seen["from"])
        since = max(first, float(seen["until"]) - LOOK_BACK_S)
        columns = tables.events.c
        query = select(columns.run_id, columns.time, columns.message, columns.data)
        query = query.where(columns.kind == DRIFT_EVENT, columns.time >= since).order_by(columns.id)
        engine = self._records.engine
        with translated_database_errors(engine), engine.begin() as connection:
            found = [alert_of_event(*row) for row in connection.execute(query)]
        return Look(found, {"until": max(now, float(seen["until"])), "from": first})


def alert_of_event(run_id: str, time: float, message: str, data: dict[str, Any]) -> Alert:
    """Pure."""
    told = data.get("alarms")
    alarms = [str(one) for one in told] if isinstance(told, list) else []
    return Alert(
        kind="drift",
        subject=run_id,
        severity="warning",
        title=f"drift in {run_id}, window {data.get('window', '?')}",
        text="\n".join([*(alarms or [message]), f"look: raytrain runs show {run_id}"]),
        time=time,
        details={"run": run_id, "window": str(data.get("window", "")), "report": str(data.get("report", ""))},
        event=f"{run_id} {data.get('window')} {data.get('report')}",
    )

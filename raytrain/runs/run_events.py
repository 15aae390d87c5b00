"""What happened to a run, in order: rows of the events table and lines of its events.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy
from sqlalchemy import select

from raytrain.runs import folder, tables
from raytrain.runs.record_types import EventRecord
from raytrain.storage.home import run_folder

_COLUMNS = tables.events.c


def add(connection: sqlalchemy.Connection, run_id: str, events: Sequence[EventRecord]) -> None:
    if events:
        connection.execute(tables.events.insert(), [{"run_id": run_id, **asdict(one)} for one in events])


def append_to_folder(run_id: str, event: EventRecord) -> None:
    """Only where the run's folder is on this machine."""
    place = run_folder(run_id)
    if place.is_dir():
        folder.append_json_line(place / folder.EVENTS_FILE, asdict(event))


def read(connection: sqlalchemy.Connection, run_id: str) -> list[EventRecord]:
    query = select(_COLUMNS.time, _COLUMNS.kind, _COLUMNS.message, _COLUMNS.data)
    found = connection.execute(query.where(_COLUMNS.run_id == run_id).order_by(_COLUMNS.id))
    return [EventRecord(*row) for row in found]

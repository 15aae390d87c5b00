"""Where the simulated month takes place: its home, its records, its queue, and what a look has come to in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from raytrain.pipeline.loop.round import Round
from raytrain.runs.records import Records, open_records
from raytrain.storage.home import raytrain_home


def own_folder() -> Path:
    """Of what it leaves."""
    return raytrain_home() / "loops" / "month"


def begin_anew() -> None:
    """In a home of this month's: what happened in another is no part of its story, and keeps no order back."""
    home = raytrain_home() / "months" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    os.environ["RAYTRAIN_HOME"] = str(home)
    own_folder().mkdir(parents=True)


def told_of(done: Round) -> Iterator[str]:
    for one in done.windows:
        yield f"window {one['number']}: score {one['score']:.2f}{', an alarm' if one['alarms'] else ''}"
    if done.reference is not None:
        yield f"a new reference is frozen: {done.reference[:19]}"
    if done.collected is not None and done.collected["num_new"]:
        aside = len(done.collected["quarantined"])
        yield f"{done.collected['num_new']} rows to learn from; {aside} rows are set aside"
    if done.guarded is not None and done.guarded["rolled_back_to"] is not None:
        yield f"taken back: production is {done.guarded['rolled_back_to']} again"
    if done.queued is not None:
        yield f"ordered, and in the queue: {done.queued}"
    yield from done.blind


@contextmanager
def opened() -> Iterator[Records]:
    records = open_records()
    try:
        yield records
    finally:
        records.close()


@contextmanager
def working_queue() -> Iterator[None]:
    """`raytrain queue work`, as it would run on a machine of its own."""
    with (own_folder() / "queue.log").open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "raytrain", "queue", "work", "--every", "1"], stdout=stream, stderr=stream
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)

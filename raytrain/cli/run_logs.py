"""`raytrain runs logs`: a run's events and log, to its end where wanted."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.recorded_runs import RunArgument, opened_records
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.runs.record_types import EventRecord
    from raytrain.runs.records import Records

_POLL_EVERY_S = 0.5


def show_logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines of the log.")] = None,
    as_json: JsonOption = False,
) -> None:
    """A run's events and its log."""
    from raytrain.runs import views
    from raytrain.runs.folder import LOG_FILE
    from raytrain.storage.home import run_folder

    if follow and as_json:
        raise ConfigError(
            "--follow and --json together", why="--json prints one object", fix="leave one of them out"
        )
    with opened_records() as records:
        record = records.run_with_prefix(run)
        events = records.events(record.id)
        log = run_folder(record.id) / LOG_FILE
        lines, position = _read_log(log, tail)

        def show(console: Console) -> None:  # noqa: ARG001 - a log is printed as it is, without a console's wrapping
            for event in events:
                print(views.event_line(event))
            for line in lines:
                print(line)

        found = {"events": [views.event_object(event) for event in events], "log": lines}
        emit({"run_id": record.id, **found}, as_json, show)
        if follow:
            _follow(records, record.id, log, position, len(events))


def _read_log(log: Path, tail: int | None) -> tuple[list[str], int]:
    """The (last) lines, and the position after them."""
    if not log.is_file():
        return [], 0
    with log.open("rb") as stream:
        lines = deque(stream, maxlen=tail)
        return [line.decode(errors="replace").rstrip("\n") for line in lines], stream.tell()


def _follow(records: Records, run_id: str, log: Path, position: int, num_shown: int) -> None:
    from raytrain.runs import views

    while True:
        going_on = records.get_run(run_id).state in ("queued", "running")
        new: list[EventRecord] = records.events(run_id)[num_shown:]
        num_shown += len(new)
        for event in new:
            print(views.event_line(event))
        if log.is_file():
            with log.open("rb") as stream:
                stream.seek(position)
                sys.stdout.write(stream.read().decode(errors="replace"))
                position = stream.tell()
        sys.stdout.flush()
        if not going_on:
            return
        time.sleep(_POLL_EVERY_S)

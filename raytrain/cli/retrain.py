"""`raytrain retrain`: an order of the triggers, carried out from rows to production."""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, VerboseOption, emit, exit_code_when_stopped, stderr_console
from raytrain.errors import (
    ConfigError,
    DataError,
    IntegrityError,
    NotRegisteredError,
    PlatformError,
    RefusedError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.pipeline.loop.retraining import Retrained

LoopArgument = Annotated[
    Path, typer.Argument(metavar="LOOP", help="The loop's YAML file, such as jobs/loops/demo.yaml.")
]

_FINAL = (ConfigError, DataError, IntegrityError, NotRegisteredError, RefusedError)
"""Trying again would come to the same: the order is settled. After another failure the same command goes on."""


def retrain(
    loop: LoopArgument,
    order: Annotated[str, typer.Argument(help="The order's id: raytrain triggers orders.")],
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (auto or host:port).")] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Rows that came since, training, evaluation, release, gate, trial, production. The same command goes on where it
    was stopped.

    Ends with 0 where production has changed, and where what was trained is no gain: that is an answer, too."""
    from raytrain.cli.recorded_runs import opened_records
    from raytrain.cli.run_recipe import StepsView
    from raytrain.monitoring.alerts.spool import raise_alert
    from raytrain.monitoring.triggers.store import TriggerStore
    from raytrain.pipeline.loop.chain import AwaitsApprovalError
    from raytrain.pipeline.loop.opening import release_of
    from raytrain.pipeline.loop.retraining import given_up
    from raytrain.pipeline.loop.retraining import retrain as carry_out
    from raytrain.pipeline.loop.section import load_loop
    from raytrain.pipeline.loop.telling import ended_badly, ended_well

    loaded = load_loop(loop)
    with (
        opened_records() as records,
        redirect_stdout(sys.stderr),
        StepsView(stderr_console(), quiet=as_json, verbose=verbose) as view,
    ):
        store = TriggerStore(records.engine)
        found = store.order(order)
        _refuse(found.order.triggers, loaded.triggers.triggers, order, is_dry_run=found.order.dry_run)
        if found.outcome is not None:
            raise ConfigError(
                f"the order {order} is done with",
                why=f"it {found.outcome}: {found.why}",
                fix="see `raytrain triggers orders`",
            )
        release = release_of(loaded, records, view.tell)
        try:
            done = carry_out(loaded, found, release, records, view, address)
        except AwaitsApprovalError:
            raise
        except _FINAL as error:
            why = error.line
            if given_up(loaded, order, why, release, records) == "failed":
                raise_alert(ended_badly(order, f"{why}\nfix: {error.fix}", time.time()))
            raise
    if done.outcome is not None:
        raise_alert(ended_well(done, time.time()))
    emit(_told(done), as_json, lambda console: _show(console, done))
    return exit_code_when_stopped(done.stopped_by) or PlatformError.exit_code if done.stopped_by else 0


def _refuse(ordered_by: str, triggers: str, order: str, *, is_dry_run: bool) -> None:
    if ordered_by != triggers:
        raise ConfigError(
            f"{order} is no order of this loop",
            why=f"{ordered_by} ordered it, and the loop's triggers are {triggers}",
            fix="name the loop whose order it is",
        )
    if is_dry_run:
        raise ConfigError(
            f"{order} is not to be carried out",
            why="it was ordered with `dry_run: true`",
            fix="take that out of the triggers file; the next order is a real one",
        )


def _told(done: Retrained) -> dict[str, object]:
    from dataclasses import asdict

    record = done.record
    return {
        "order": done.order_id,
        "outcome": done.outcome,
        "why": done.why,
        "version": done.version,
        "steps": [asdict(step) for step in done.steps],
        "record": None if record is None else {"place": str(record.location), "digest": record.digest},
    }


def _show(console: Console, done: Retrained) -> None:
    from raytrain.cli.run_recipe import steps_table

    console.print(steps_table(done.steps))
    outcome = "stopped" if done.outcome is None else done.outcome.replace("_", " ")
    console.print(f"{done.order_id}: {outcome}: {done.why}", markup=False, highlight=False, soft_wrap=True)
    if done.record is not None:
        console.print(f"record: {done.record.location}", markup=False, highlight=False, soft_wrap=True)

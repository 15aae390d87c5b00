"""An order is carried out: rows, a run from rows to a decision, a release, the gate, a trial online, production.

Each step leaves what it made where its inputs name it, so that the same call goes on where it was killed and makes
nothing twice. What has reached production once is not put there again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from raytrain.errors import ConfigError, PlatformError
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.state import Order, Outcome
from raytrain.monitoring.triggers.store import Ordered, TriggerStore
from raytrain.pipeline.loop import fresh_rows
from raytrain.pipeline.loop.chain import Carrying, RetrainView, promoted_candidate
from raytrain.pipeline.loop.chain_record import RECORD_FILE, Chain, candidate_of, recalled, write_record
from raytrain.pipeline.loop.fresh_rows import RowsPlan
from raytrain.pipeline.loop.opening import retrainings_of
from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.recipe import StepResult
from raytrain.pipeline.steps import Release, Stopped
from raytrain.runs.carrying import carried
from raytrain.runs.records import Records
from raytrain.storage.artifact import Artifact, open_artifact
from raytrain.storage.location import Location

KIND = "retrain"


@dataclass(frozen=True)
class Retrained:
    """What came of an order."""

    order_id: str
    outcome: Outcome | None
    """None where it was stopped: the same call goes on."""
    why: str
    steps: list[StepResult]
    version: str | None = None
    record: Artifact | None = None
    stopped_by: str | None = None


def retrain(
    loop: Loop, ordered: Ordered, release: Release, records: Records, view: RetrainView, address: str | None
) -> Retrained:
    """Carry out an order. Called in the main thread.

    Raises the PlatformError that ended it: the order stays open, and what is made stays made.
    """
    order_id, name = ordered.order.id, loop.section.loop
    config = {"order": order_id, "loop": loop.section.model_dump(mode="json")}
    run = records.create_run(order_id, kind=KIND, name=name, config=config)
    if run.state == "succeeded":
        return settled(loop, order_id, release, records)
    one = Carrying(loop, ordered, release, records, view, address)
    steps = one.chain.steps
    with carried(records, order_id, lambda: len(steps)):
        try:
            outcome, why = one.carry_out()
        except (Stopped, KeyboardInterrupt) as stop:
            by = str(stop.args[0]) if stop.args else "SIGINT"
            records.set_state(order_id, "cancelled", f"stopped by {by}", global_step=len(steps))
            return Retrained(order_id, None, f"stopped by {by}", steps, stopped_by=by)
        record = write_record(one.folder / "record", one.chain, outcome, why, records)
        one.note_artifact("record", "written", record)
        # The rows are used from here on, and the order is done with: who is killed between the two says the rest again.
        records.set_state(order_id, "succeeded", f"{outcome}: {why}", global_step=len(steps))
    TriggerStore(records.engine).settle(loop.triggers, order_id, outcome, why)
    return Retrained(order_id, outcome, why, steps, one.chain.version, record)


def settled(loop: Loop, order_id: str, release: Release, records: Records) -> Retrained:
    """Of a run that is done: a call that was killed may not have settled the order."""
    record = open_artifact(retrainings_of(release) / order_id / "record")
    told = json.loads((record.path / RECORD_FILE).read_text(encoding="utf-8"))
    TriggerStore(records.engine).settle(loop.triggers, order_id, told["outcome"], told["why"])
    steps = [
        StepResult(**{**one, "run_ids": tuple(one["run_ids"]), "was_known": True}) for one in told["steps"]
    ]
    return Retrained(order_id, told["outcome"], told["why"], steps, told["version"], record)


def given_up(loop: Loop, order_id: str, why: str, release: Release, records: Records) -> Outcome:
    """An order's run will not go on: its record says so, and it is settled. It has failed, unless what it released was
    put into production: then it has succeeded all the same, and its rows are used. Of one that failed, rows that it
    had not written down yet are free for the next.

    Raises StorageError where the record of one that succeeded cannot be written; it stays open then.
    """
    folder = retrainings_of(release) / order_id
    plan = fresh_rows.open_plan(folder / "rows")
    store = TriggerStore(records.engine)
    order = store.order(order_id).order
    promoted = promoted_candidate(order_id, release, records)
    if promoted is not None:
        version, there = promoted
        why = f"{release.name}@{version} was put into production at {there}; afterwards: {why}"
        _write_end(loop, order, plan, ("succeeded", why), folder / "record", records)
        records.set_state(order_id, "succeeded", f"succeeded: {why}")
        store.settle(loop.triggers, order_id, "succeeded", why)
        return "succeeded"
    if plan is None:
        InteractionPool(records.engine).release(order_id)
    try:
        _write_end(loop, order, plan, ("failed", why), folder / "record", records)
    except PlatformError as error:  # as of a full disk, of which the order may have died
        why = f"{why}; it has no record: {error.line}"
    store.settle(loop.triggers, order_id, "failed", why)
    return "failed"


def _write_end(
    loop: Loop,
    order: Order,
    plan: RowsPlan | None,
    end: tuple[Outcome, str],
    place: Location,
    records: Records,
) -> None:
    """end: what came of it, and why."""
    try:
        run = records.get_run(order.id)
    except ConfigError:
        run = None  # its job has never come so far
    began_at = order.time if run is None else run.created_at
    steps = [] if run is None else recalled(order.id, records)
    chain = Chain(order, loop.section.loop, loop.section.release, began_at, steps, plan)
    chain.version = None if run is None else candidate_of(order.id, records)
    record = write_record(place, chain, *end, records)
    if run is not None:
        records.add_artifact(
            order.id, "record", "written", record.kind, record.digest, str(place), record.manifest.parents
        )

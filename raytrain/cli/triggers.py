"""`raytrain triggers`: whether production is to be trained again, why, and what was ordered."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytrain.cli.output import JsonOption, emit, stderr_console
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.monitoring.triggers.section import TriggersSection
    from raytrain.monitoring.triggers.state import Decision, Seen
    from raytrain.monitoring.triggers.store import Ordered
    from raytrain.runs.records import Records

app = typer.Typer(
    help="Decide when production is to be trained again, and order it once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="YAML of when; see docs/triggers.md.")]
RowsOption = Annotated[int | None, typer.Option("--new-rows", min=0, help="Rows that no run has used.")]
TrainedOption = Annotated[
    str | None,
    typer.Option("--trained-at", help="When what is in production was trained: an age (40d) or a date."),
]
SourceOption = Annotated[
    list[str] | None, typer.Option("--source", help="All that rows come from; each once.")
]
LossOption = Annotated[
    list[str] | None,
    typer.Option("--canary-loss", help="A trial that a candidate lost, by any name; each once."),
]


@app.command("check")
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Is the file valid, and does its watch record the metrics that it names?"""
    from raytrain.monitoring.triggers.observing import metric_names

    with opened_records() as records:
        section = _loaded(file, records)
        metrics = metric_names(section.watch, records)
    is_known = section.watch is None or metrics is not None
    result = {"triggers": section.triggers, "rules": [one.name for one in section.when.leaves()],
              "metrics_checked": is_known}  # fmt: skip

    def show(console: Console) -> None:
        unknown = (
            "" if is_known else f"; the watch {section.watch} has recorded nothing yet to check metrics by"
        )
        console.print(f"{section.triggers} is valid{unknown}", highlight=False, markup=False)

    emit(result, as_json, show)


@app.command("decide")
def decide(
    file: FileArgument,
    new_rows: RowsOption = None,
    trained_at: TrainedOption = None,
    source: SourceOption = None,
    canary_loss: LossOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would happen and why; nothing is kept.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look once, and order a retraining where it is time. Of several who decide at once one orders it."""
    from raytrain.monitoring.alerts.spool import raise_alert
    from raytrain.monitoring.triggers.deciding import decide as decided
    from raytrain.monitoring.triggers.observing import look
    from raytrain.monitoring.triggers.store import TriggerStore
    from raytrain.monitoring.triggers.telling import alerts_of

    beside, now = _seen(new_rows, trained_at, source, canary_loss), time.time()
    with opened_records() as records:
        section, store = _loaded(file, records), TriggerStore(records.engine)
        seen = look(section, records, now, beside)
        if dry_run:
            decision = decided(section, store.state(section.triggers), seen, now)
        else:
            decision = store.decide(section, seen, now)
            for one in alerts_of(section, decision, now):
                raise_alert(one)
    result = {**_object(decision), "dry_run": dry_run or section.dry_run}
    emit(result, as_json, lambda console: _show(console, decision, is_kept=not dry_run))


@app.command("replay")
def replay(file: FileArgument, as_json: JsonOption = False) -> None:
    """What would have been ordered over all windows that the watch has recorded, if each order had succeeded at once.
    Nothing is kept."""
    from raytrain.monitoring.triggers.deciding import decide as decided
    from raytrain.monitoring.triggers.deciding import settle
    from raytrain.monitoring.triggers.observing import one_after_another, with_windows
    from raytrain.monitoring.triggers.state import Seen, State

    with opened_records() as records:
        section = _loaded(file, records).model_copy(update={"budget": None})
        if section.watch is None:
            raise ConfigError(
                f"{section.triggers} watches nothing",
                why="`watch` is not set",
                fix="name a watch in the file",
            )
        seen = with_windows(Seen(), section.watch, records)
    state, told = State(), []
    for windows in one_after_another(seen.windows):
        last = windows[-1]
        decision = decided(section, state, Seen(series=seen.series, windows=windows), last.ended_at)
        state = decision.state
        if state.open_order is not None:
            state = settle(section, state, state.open_order, "succeeded")
        told.append({"window": last.number, "ended_at": last.ended_at, **_object(decision)})
    result = {
        "windows": len(told),
        "orders": sum(one["order"] is not None for one in told),
        "decisions": told,
    }
    emit(result, as_json, lambda console: _show_replay(wide(console), result))


@app.command("request")
def request(
    file: FileArgument,
    why: Annotated[str, typer.Option(help="It stands with the order.")],
    as_json: JsonOption = False,
) -> None:
    """Ask for a retraining by hand; the next decision takes it up, also while it cools down."""
    from raytrain.monitoring.triggers.store import TriggerStore

    with opened_records() as records:
        section = _loaded(file, records)
        asked = TriggerStore(records.engine).request(section, getpass.getuser(), why)
    emit({"request": vars(asked)}, as_json, lambda console: console.print(f"asked of {section.triggers}"))


@app.command("orders")
def orders(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of these triggers alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most orders to show.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Retrainings that were ordered, newest first, and what came of them."""
    from raytrain.monitoring.triggers.store import TriggerStore

    with opened_records() as records:
        found = TriggerStore(records.engine).orders(name, limit)
    emit(
        {"orders": [_ordered(one) for one in found]},
        as_json,
        lambda console: _show_orders(wide(console), found),
    )


@app.command("settle")
def settle_order(
    file: FileArgument,
    order: Annotated[str, typer.Argument(help="The order's id.")],
    outcome: Annotated[str, typer.Argument(help="succeeded, no_gain or failed.")],
    why: Annotated[str, typer.Option(help="It stands with the order.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Say what came of an order, so that the next may be made."""
    from typing import get_args

    from raytrain.monitoring.triggers.state import Outcome
    from raytrain.monitoring.triggers.store import TriggerStore
    from raytrain.runs.record_types import one_of

    known: tuple[Outcome, ...] = get_args(Outcome)
    came_to = one_of(outcome, known, "outcome of an order")
    with opened_records() as records:
        section = _loaded(file, records)
        found = TriggerStore(records.engine).settle(section, order, came_to, why)
    emit(
        {"order": _ordered(found)},
        as_json,
        lambda console: console.print(f"{order}: {outcome}", highlight=False),
    )


def _loaded(file: Path, records: Records) -> TriggersSection:
    """Its metrics are checked where the watch has recorded some."""
    from raytrain.monitoring.triggers.observing import metric_names
    from raytrain.monitoring.triggers.section import load_triggers

    section = load_triggers(file)
    metrics = metric_names(section.watch, records)
    return section if metrics is None else load_triggers(file, metrics)


def _seen(
    new_rows: int | None, trained_at: str | None, source: list[str] | None, canary_loss: list[str] | None
) -> Seen:
    from raytrain.monitoring.triggers.state import Seen
    from raytrain.runs.views import parse_since

    return Seen(
        new_rows=new_rows,
        trained_at=None if trained_at is None else parse_since(trained_at, time.time()),
        sources=None if source is None else frozenset(source),
        canary_losses=frozenset(canary_loss or ()),
    )


def _object(decision: Decision) -> dict[str, Any]:
    return {
        "order": None if decision.order is None else vars(decision.order),
        "reasons": list(decision.reasons),
        "blocked": list(decision.blocked),
        "notes": list(decision.notes),
    }


def _ordered(one: Ordered) -> dict[str, Any]:
    return {**vars(one.order), "outcome": one.outcome, "settled_at": one.settled_at, "why": one.why}


def _show(console: Console, decision: Decision, *, is_kept: bool) -> None:
    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for one in decision.reasons:
        tell(f"  {one}")
    for one in decision.notes:
        stderr_console().print(f"note: {one}", markup=False, highlight=False, soft_wrap=True)
    if decision.order is not None:
        tell(f"{'ordered' if is_kept else 'would order'}: {decision.order.id}")
    elif decision.blocked:
        tell("it would be time, but: " + "; ".join(decision.blocked))
    else:
        tell("nothing is to be done")


def _show_replay(console: Console, result: dict[str, Any]) -> None:
    from raytrain.cli.registry_place import show_rows
    from raytrain.runs.views import local_time

    rows = [
        (str(one["window"]), local_time(one["ended_at"]),
         one["order"]["id"] if one["order"] else "; ".join(one["blocked"]), "; ".join(one["reasons"]))
        for one in result["decisions"]
        if one["order"] or one["blocked"]
    ]  # fmt: skip
    if rows:
        show_rows(console, ("window", "time", "order, or why none", "rules"), rows)
    console.print(f"{result['orders']} orders in {result['windows']} windows", highlight=False)


def _show_orders(console: Console, found: list[Ordered]) -> None:
    from raytrain.cli.registry_place import show_rows
    from raytrain.runs.views import local_time

    rows = [
        (one.order.id, local_time(one.order.time), "dry run" if one.order.dry_run else one.outcome or "open",
         "; ".join(one.order.reasons), one.why or "")
        for one in found
    ]  # fmt: skip
    if not rows:
        console.print("nothing was ordered")
        return
    show_rows(console, ("order", "time", "state", "because", "then"), rows)

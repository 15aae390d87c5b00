"""`raytrain triggers`: whether production is to be trained again, why, and what was ordered."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raytrain.cli.output import JsonOption, emit
from raytrain.cli.recorded_runs import opened_records, wide
from raytrain.cli.registry_place import PlaceOption
from raytrain.cli.triggers_shown import (
    checked_object,
    decision_object,
    order_object,
    show_checked,
    show_decision,
    show_orders,
    show_replay,
)
from raytrain.errors import ConfigError

if TYPE_CHECKING:
    from raytrain.monitoring.triggers.section import TriggersSection
    from raytrain.monitoring.triggers.state import Seen
    from raytrain.runs.records import Records

app = typer.Typer(
    help="Decide when production is to be trained again, and order it once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="YAML of when; see docs/triggers.md.")]
RowsOption = Annotated[
    int | None,
    typer.Option("--new-rows", min=0, help="Rows that no run has used; default: those that were collected."),
]
TrainedOption = Annotated[
    str | None,
    typer.Option(
        "--trained-at",
        help="When what is in production was trained: an age (40d) or a date; default: by the file's `release`.",
    ),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option("--source", help="All that rows come from; each once. Default: by the file's `recipe`."),
]
LossOption = Annotated[
    list[str] | None,
    typer.Option(
        "--canary-loss", help="A trial lost by a candidate that nobody here ordered, by any name; each once."
    ),
]


@app.command("check")
def check(file: FileArgument, registry: PlaceOption = None, as_json: JsonOption = False) -> None:
    """Is the file valid, and what does it see: its metrics, production's age, the sources of its recipe?"""
    from raytrain.monitoring.triggers.observing import look, metric_names
    from raytrain.monitoring.triggers.section import check_recipe
    from raytrain.monitoring.triggers.state import Seen

    with opened_records() as records:
        section = _loaded(file, records, registry)
        check_recipe(section)
        metrics = metric_names(section.watch, records)
        seen = look(section, records, time.time(), Seen())
    result = checked_object(section, seen, metrics_checked=section.watch is None or metrics is not None)
    emit(result, as_json, lambda console: show_checked(wide(console), section, result))


@app.command("decide")
def decide(
    file: FileArgument,
    new_rows: RowsOption = None,
    trained_at: TrainedOption = None,
    source: SourceOption = None,
    canary_loss: LossOption = None,
    registry: PlaceOption = None,
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
        section, store = _loaded(file, records, registry), TriggerStore(records.engine)
        seen = look(section, records, now, beside)
        if dry_run:
            decision = decided(section, store.state(section.triggers), seen, now)
        else:
            decision = store.decide(section, seen, now)
            for one in alerts_of(section, decision, now):
                raise_alert(one)
    result = {**decision_object(decision), "dry_run": dry_run or section.dry_run}
    emit(result, as_json, lambda console: show_decision(console, decision, is_kept=not dry_run))


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
        told.append({"window": last.number, "ended_at": last.ended_at, **decision_object(decision)})
    result = {
        "windows": len(told),
        "orders": sum(one["order"] is not None for one in told),
        "decisions": told,
    }
    emit(result, as_json, lambda console: show_replay(wide(console), result))


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
        {"orders": [order_object(one) for one in found]},
        as_json,
        lambda console: show_orders(wide(console), found),
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
        {"order": order_object(found)},
        as_json,
        lambda console: console.print(f"{order}: {outcome}", highlight=False),
    )


def _loaded(file: Path, records: Records, registry: str | None = None) -> TriggersSection:
    """Its metrics are checked where the watch has recorded some. registry: another place than the file's."""
    from raytrain.monitoring.triggers.observing import metric_names
    from raytrain.monitoring.triggers.section import load_triggers

    section = load_triggers(file)
    metrics = metric_names(section.watch, records)
    if metrics is not None:
        section = load_triggers(file, metrics)
    if registry is None:
        return section
    if section.release is None:
        raise ConfigError(
            f"--registry {registry}",
            why=f"{file} asks nothing of a registry: it has no `release`",
            fix="write `release: NAME` in the file, or leave --registry out",
        )
    return section.model_copy(update={"registry": registry})


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

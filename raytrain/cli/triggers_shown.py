"""What `raytrain triggers` prints, for people and as objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raytrain.cli.output import stderr_console

if TYPE_CHECKING:
    from rich.console import Console

    from raytrain.monitoring.triggers.section import TriggersSection
    from raytrain.monitoring.triggers.state import Decision, Seen
    from raytrain.monitoring.triggers.store import Ordered


def checked_object(section: TriggersSection, seen: Seen, *, metrics_checked: bool) -> dict[str, Any]:
    from raytrain.runs.views import as_time

    return {
        "triggers": section.triggers,
        "rules": [one.name for one in section.when.leaves()],
        "metrics_checked": metrics_checked,
        "trained_at": as_time(seen.trained_at),
        "sources": None if seen.sources is None else sorted(seen.sources),
        "notes": list(seen.notes),
    }


def show_checked(console: Console, section: TriggersSection, result: dict[str, Any]) -> None:
    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    unknown = f"; the watch {section.watch} has recorded nothing yet to check metrics by"
    tell(f"{section.triggers} is valid{'' if result['metrics_checked'] else unknown}")
    if result["trained_at"] is not None:
        tell(f"  {section.release}: what is in production was trained {result['trained_at']}")
    for one in result["sources"] or ():
        tell(f"  source {one}")
    for one in result["notes"]:
        stderr_console().print(f"note: {one}", markup=False, highlight=False, soft_wrap=True)


def decision_object(decision: Decision) -> dict[str, Any]:
    return {
        "order": None if decision.order is None else vars(decision.order),
        "reasons": list(decision.reasons),
        "blocked": list(decision.blocked),
        "notes": list(decision.notes),
    }


def order_object(one: Ordered) -> dict[str, Any]:
    return {**vars(one.order), "outcome": one.outcome, "settled_at": one.settled_at, "why": one.why}


def show_decision(console: Console, decision: Decision, *, is_kept: bool) -> None:
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


def show_replay(console: Console, result: dict[str, Any]) -> None:
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


def show_orders(console: Console, found: list[Ordered]) -> None:
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

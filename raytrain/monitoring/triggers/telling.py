"""What people are told of a decision."""

from __future__ import annotations

from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.triggers.section import TriggersSection
from raytrain.monitoring.triggers.state import Decision


def alerts_of(section: TriggersSection, decision: Decision, now: float) -> list[Alert]:
    """Of an order; and of a rule that holds and is kept from ordering by what a person can change. Pure."""
    order, name = decision.order, section.triggers
    if order is not None:
        then = "\nIt is a dry run: nobody carries it out." if order.dry_run else ""
        return [
            Alert(
                kind="retraining",
                subject=order.id,
                severity="info",
                title=f"{name} orders a retraining" + (" (dry run)" if order.dry_run else ""),
                text="\n".join(order.reasons) + then,
                time=now,
                details={"order": order.id, "watched": order.series, "window": str(order.window)},
                state="ordered",
                event=order.id,
            )
        ]
    held = [one for one in decision.blocked if not one.startswith(("cooling down", "the order "))]
    if not held:
        return []
    return [
        Alert(
            kind="retraining",
            subject=f"{name} is held",
            severity="warning",
            title=f"{name} would order a retraining, and may not",
            text="\n".join([*held, "", *(one for one in decision.reasons if one.startswith("yes"))]),
            time=now,
        )
    ]

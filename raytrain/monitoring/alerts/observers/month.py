"""What runs have taken of what a month may take."""

from __future__ import annotations

from typing import Any

from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.observers.observer import Look
from raytrain.monitoring.alerts.section import MonthSection
from raytrain.monitoring.spending import Spending, month_of, spent_in_month
from raytrain.runs.records import Records


class MonthObserver:
    """See `Observer`."""

    name, every_s = "month", 300.0

    def __init__(self, records: Records, section: MonthSection) -> None:
        self._records, self._section = records, section

    def look(self, seen: Any, now: float) -> Look:  # noqa: ARG002 - each share of each month is an event of its own
        return Look(alerts_of_month(self._section, spent_in_month(self._records, now), now), {})


def alerts_of_month(section: MonthSection, spent: Spending, now: float) -> list[Alert]:
    """The highest share of each limit that is reached. Pure."""
    used = {
        "money": (spent.money.get(section.currency, 0.0), section.money, section.currency),
        "gpu_hours": (spent.gpu_hours, section.gpu_hours, "GPU hours"),
    }
    alerts = []
    for what, (amount, limit, unit) in used.items():
        reached = [one for one in section.tell_at if limit is not None and amount >= one * limit]
        if limit is not None and reached:
            unseen = spent.unseen(section.currency) if what == "money" else None
            alerts.append(_alert(what, max(reached), (amount, limit, unit), month_of(now), now, unseen))
    return alerts


def _alert(
    what: str, share: float, used: tuple[float, float, str], month: str, now: float, unseen: str | None
) -> Alert:
    amount, limit, unit = used
    beside = "" if unseen is None else f"\nbeside that: {unseen}"
    return Alert(
        kind="budget",
        subject=f"{month} {what} {share:g}",
        severity="critical" if share >= 1 else "warning",
        title=f"{amount / limit:.0%} of the month's {unit} are used",
        text=f"{amount:.2f} of {limit:g} {unit} in {month}{beside}\nlook: raytrain runs cost --by month",
        time=now,
        details={"month": month, "used": f"{amount:.2f}", "limit": f"{limit:g}", "unit": unit},
        state=f"of {limit:g}",
        event=f"{month} {what} {share:g} of {limit:g}",
    )

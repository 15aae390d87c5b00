"""What the simulated month comes to, in figures: how soon a drift is seen, what a retraining gains and costs, and what
people had to do."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.month_traffic import NEW_TOOL, Given, Traffic
from raytrain.evaluation.safety.redaction import pseudonym
from raytrain.evaluation.statistics.proportions import wilson_interval
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.pipeline.loop.round import Round
from raytrain.pipeline.loop.story import Story
from raytrain.runs.records import Records
from raytrain.storage.location import write_atomically

_KINDS = ("alarm", "promotion", "override", "rollback")


def figures_of(
    story: Story, traffic: Traffic, records: Records, rounds: Sequence[Round], shift: float
) -> dict[str, Any]:
    """shift: when week 2 began."""
    given = [one for one in traffic.given if not one.request.is_poison]
    moments = {kind: [one.time for one in story.events if one.kind == kind] for kind in _KINDS}
    alarm = next((one for one in moments["alarm"] if one > shift), math.nan)
    retrained = next((one for one in moments["promotion"] if one > shift), math.nan)
    forced, back = (next(iter(moments[kind]), math.nan) for kind in ("override", "rollback"))

    def between(begin: float, end: float) -> list[Given]:
        return [one for one in given if begin < one.at <= end]

    good = between(retrained, forced)
    poisoners = {pseudonym(one.request.user) for one in traffic.given if one.request.is_poison}
    num_poisoned = sum(one.request.is_poison for one in traffic.given)
    aside = [row.user in poisoners for row in InteractionPool(records.engine).rows("quarantined")]
    return {
        "requests": len(traffic.given),
        "requests that failed": len(traffic.failed),
        "answers from the shift to the alarm": len(between(shift, alarm)),
        "right before the shift": _share(between(0.0, shift)),
        "right after it, by the version before": _share(between(shift, retrained)),
        "right after the retraining": _share(good),
        f"of these, {NEW_TOOL}": _share([one for one in good if NEW_TOOL in one.request.expected]),
        "wrong answers of the forced version": sum(not one.is_right for one in between(forced, back)),
        "right after it was taken back": _share(between(back, math.inf)),
        "poisoned rows that were set aside": f"{sum(is_poison for is_poison in aside)} of {num_poisoned}",
        "other rows that were set aside": sum(not is_poison for is_poison in aside),
        "orders": [one.told for one in story.events if one.kind == "outcome"],
        "core minutes of training": round(_core_minutes(records), 1),
        "looks at which something could not be done": sum(bool(one.blind) for one in rounds),
        "what people did, but for forcing a version through": _by_hand(records, story, shift),
    }


def _by_hand(records: Records, story: Story, shift: float) -> int:
    """Orders that somebody asked for, rows that somebody judged, versions that somebody promoted since the shift, or
    forced, but for the one that the story is about."""
    asked = sum("asked for by" in one.told for one in story.events if one.kind == "order")
    pool = InteractionPool(records.engine)
    judged = len(pool.rows("refused")) + sum(one.reason is not None for one in pool.rows("ready"))
    promoted = sum(
        one.kind == "promotion" and one.time > shift and ": order " not in one.told for one in story.events
    )
    return asked + judged + promoted + max(0, sum(one.kind == "override" for one in story.events) - 1)


def _share(found: Sequence[Given]) -> dict[str, Any]:
    """With its 95 % interval; empty where nothing was asked."""
    if not found:
        return {}
    right = sum(one.is_right for one in found)
    interval = wilson_interval(right, len(found))
    return {"right": right, "of": len(found), "low": interval.low, "high": interval.high}


def _told(value: Any) -> str:
    if isinstance(value, dict):
        one = value
        share = (
            f"{one['right'] / one['of']:.0%} of {one['of']} ({one['low']:.0%} to {one['high']:.0%})"
            if one
            else ""
        )
        return share or "nothing was asked"
    return "; ".join(value) if isinstance(value, list) else str(value)


def _core_minutes(records: Records) -> float:
    """A worker takes one core."""
    runs = records.list_runs(kind="train", limit=10_000).runs
    return sum(
        (one.ended_at - one.started_at) / 60 * int(one.config["scaling"]["num_workers"])
        for one in runs
        if one.started_at is not None and one.ended_at is not None
    )


def show_figures(found: dict[str, Any], folder: Path) -> None:
    """As a table, and as figures.json."""
    table = Table(show_header=False, box=None)
    for name, value in found.items():
        table.add_row(name, _told(value))
    Console().print(table)
    write_atomically(folder / "figures.json", (json.dumps(found, indent=1) + "\n").encode())

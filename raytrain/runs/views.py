"""Runs as a person reads them, and as the objects that `--json` prints."""

from __future__ import annotations

import re
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError
from raytrain.runs.compare import MetricSummary
from raytrain.runs.folder import RECIPE_FILE, as_json_number
from raytrain.runs.record_types import ArtifactUse, EventRecord, LineageNode, MetricPoint, RunRecord
from raytrain.storage.home import run_folder
from raytrain.storage.manifest import short_digest

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_STATE_STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "queued": "dim",
}


def parse_since(text: str, now: float) -> float:
    """`90m`, `36h`, `2d` before now, or a date or time as in ISO 8601 (local where it names no zone)."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if ago:
        return now - float(ago[1]) * _UNITS_S[ago[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError as error:
        raise ConfigError(
            f"--since {text}: neither an age nor a date",
            why="an age is a number and one of s, m, h, d, w",
            fix="for example --since 2d, or --since 2026-01-31",
        ) from error


def as_time(seconds: float | None) -> str | None:
    """ISO 8601, UTC."""
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )


def local_time(seconds: float) -> str:
    return clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(seconds))


def duration(seconds: float | None) -> str:
    """Two units at most: `3d 4h`, `12m 5s`."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2])


def run_seconds(run: RunRecord, now: float) -> float | None:
    """How long the run has gone on, from its first start."""
    if run.started_at is None:
        return None
    return (now if run.state == "running" else run.ended_at or run.started_at) - run.started_at


def number(value: float) -> str:
    return f"{value:.6g}"


def run_object(run: RunRecord) -> dict[str, Any]:
    times = ("created_at", "started_at", "ended_at", "heartbeat_at")
    return {
        **asdict(run),
        **{name: as_time(getattr(run, name)) for name in times},
        "resumable": run.is_resumable,
        "folder": str(run_folder(run.id)),
    }


def point_object(point: MetricPoint | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {
        "global_step": point.global_step,
        "value": as_json_number(point.value),
        "time": as_time(point.time),
    }


def event_object(event: EventRecord) -> dict[str, Any]:
    return {**asdict(event), "time": as_time(event.time)}


def use_object(use: ArtifactUse) -> dict[str, Any]:
    return {**asdict(use), "time": as_time(use.time)}


def event_line(event: EventRecord) -> str:
    return f"{local_time(event.time)}  [{event.kind}] {event.message}"


def resume_command(run: RunRecord) -> str | None:
    """What goes on with the run; None where nothing is left to do or its recipe is not on this machine."""
    recipe = run_folder(run.id) / RECIPE_FILE
    return f"raytrain {run.kind} {recipe}" if run.is_resumable and recipe.exists() else None


def steps(run: RunRecord) -> str:
    return f"{run.global_step}/{run.max_steps if run.max_steps is not None else '?'}"


def runs_table(rows: Sequence[tuple[RunRecord, MetricPoint | None]], now: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("run", "kind", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("step", "loss", "age", "duration"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run, loss in rows:
        state = Text(run.label, style=_STATE_STYLES[run.state])
        shown_loss = number(loss.value) if loss else "-"
        age, took = duration(now - run.created_at), duration(run_seconds(run, now))
        table.add_row(run.id, run.kind, state, steps(run), shown_loss, age, took)
    return table


def metrics_table(summaries: Mapping[str, MetricSummary]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for heading in ("points", "step", "last", "best", "at step"):
        table.add_column(heading, justify="right")
    for key, summary in summaries.items():
        best = (number(summary.best.value), str(summary.best.global_step)) if summary.best else ("-", "-")
        last = (str(summary.last.global_step), number(summary.last.value))
        table.add_row(escape(key), str(summary.num_points), *last, *best)
    return table


def artifacts_table(uses: Sequence[ArtifactUse]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "role", "kind", "digest", "place"):
        table.add_column(heading, overflow="fold")
    for use in uses:
        place = use.uri or "-"
        if use.kind == "checkpoint" and "://" not in place and not Path(place).exists():
            continue  # retention has dropped it since
        told = (use.direction, use.role, use.kind, short_digest(use.digest), place)
        table.add_row(*map(escape, told))
    return table


def side_by_side(heading: str, run_ids: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> Table:
    """One row a key, one column a run."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(heading)
    for run_id in run_ids:
        table.add_column(run_id, justify="right", overflow="fold")
    for key, values in rows.items():
        table.add_row(escape(key), *(escape(values.get(run_id, "-")) for run_id in run_ids))
    return table


def lineage_tree(node: LineageNode) -> Tree:
    from rich.tree import Tree

    tree = Tree(_lineage_label(node))
    _grow(tree, node)
    return tree


def _grow(tree: Tree, node: LineageNode) -> None:
    for parent in node.parents:
        _grow(tree.add(_lineage_label(parent)), parent)


def _lineage_label(node: LineageNode) -> str:
    name = ": ".join(part for part in (node.role, node.kind) if part)
    written = f"  by {node.written_by}" if node.written_by else ""
    told = f"{name} {short_digest(node.digest)}{written}".strip()
    return told if node.kind is not None else f"{told}  (no run here wrote it)"

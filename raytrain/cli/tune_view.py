"""A search before a person's eyes: a table of its trials that changes while they are made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from raytrain.tuning.forecast import Forecast
    from raytrain.tuning.outcome import TrialRow, TuneResult

_MOST_ROWS = 12
_STYLES = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red", "waiting": "dim"}


class TuneView:
    """The observer of `raytrain tune`; on a terminal a live table, elsewhere a line for each trial that ends."""

    def __init__(
        self, console: Console, *, quiet: bool = False, confirm: Callable[[Forecast], None] | None = None
    ) -> None:
        self._console = console
        self._confirm = confirm
        self._quiet = quiet
        self._live: Live | None = None
        self._told: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"  [yellow]·[/] {escape(text)}")

    def forecast(self, found: Forecast) -> None:
        if self._confirm is not None:
            self._confirm(found)

    def trials(self, rows: Sequence[TrialRow], metrics: Sequence[str], num_trials: int) -> None:
        if self._quiet:
            return
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(trials_table(rows, metrics, num_trials), refresh=True)
            return
        for row in rows:
            if row.view.state in ("running", "waiting") or row.view.number in self._told:
                continue
            self._told.add(row.view.number)
            value = "" if row.value is None else f", {metrics[0]} {row.value:.6g}"
            why = f" ({row.view.reason})" if row.view.reason else ""
            self._console.print(
                escape(f"  trial {row.view.number} {row.view.state}{value}{why}: {told_values(row)}")
            )


def trials_table(rows: Sequence[TrialRow], metrics: Sequence[str], num_trials: int) -> Table:
    """The newest trials; waiting ones are not shown."""
    begun = [row for row in rows if row.view.state != "waiting"]
    ended = sum(row.view.state != "running" for row in begun)
    table = Table(title=f"{ended} of {num_trials} trials", title_justify="left", box=None, padding=(0, 1))
    for name in ("trial", "state", "step", metrics[0], "values"):
        table.add_column(name, justify="left" if name in ("state", "values") else "right")
    for row in begun[-_MOST_ROWS:]:
        style = _STYLES[row.view.state]
        step = f"{row.global_step}/{row.max_steps}" if row.max_steps else str(row.global_step)
        value = "" if row.value is None else f"{row.value:.6g}"
        cells = (f"[{style}]{row.view.state}[/]", step, value, escape(told_values(row)))
        table.add_row(str(row.view.number), *cells)
    return table


def told_values(row: TrialRow) -> str:
    def told(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)

    return ", ".join(f"{key} {told(value)}" for key, value in row.view.values.items())


def show_result(console: Console, result: TuneResult) -> None:
    """The end of a search as a table."""
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    counts = ", ".join(f"{count} {state}" for state, count in sorted(result.counts().items()))
    lines = [("search", result.run_id), ("state", f"{result.state}: {result.ended_by}"), ("trials", counts)]
    for row in result.best:
        found = ", ".join(
            f"{metric} {value:.6g}"
            for metric, value in zip(result.metrics, row.view.objectives or [], strict=True)
        )
        lines.append((f"trial {row.view.number}", f"{found} with {told_values(row)}"))
    for name in ("best", "page", "artifact"):
        if name in result.files:
            lines.append((name, result.files[name]))
    if "best" in result.files:
        lines.append(("train it", f"raytrain train {result.files['best']}"))
    if result.state == "cancelled":
        lines.append(("go on", "run the same command again"))
    for name, value in lines:
        table.add_row(f"[bold]{name}[/]", escape(value))
    console.print(table)

"""A run before a person's eyes: one line for each phase of the start-up, then a bar with loss, speed and time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from raytrain.training.outcome import TrainResult


class ProgressView:
    """The observer of `raytrain train`; on a terminal a live bar, elsewhere a line now and then."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._max_steps = 0
        self._told_at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def phase(self, text: str, seconds: float | None) -> None:
        if self._quiet:
            return
        if seconds is not None:
            self._console.print(f"  [green]✓[/] {escape(text)} [dim]{seconds:.1f} s[/]")
        elif self._console.is_terminal:
            self._console.print(f"  [dim]… {escape(text)}[/]", end="\r")

    def plan(
        self, *, run_id: str, max_steps: int, global_step: int, num_rows: int, num_trainable: int
    ) -> None:
        self._max_steps = max_steps
        if self._quiet:
            return
        self._console.print(
            f"  [bold]{escape(run_id)}[/]: {max_steps} steps over {num_rows:,} rows, "
            f"{num_trainable:,} trainable parameters"
        )
        if not self._console.is_terminal:
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("  training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tokens/s"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task(
                "", total=max_steps, completed=global_step, loss="-", speed="-"
            )
            self._progress.start()
        elif self._task is not None:
            self._progress.update(self._task, completed=global_step)

    def metrics(self, global_step: int, metrics: dict[str, float]) -> None:
        if self._quiet:
            return
        loss, speed = metrics.get("train/loss"), metrics.get("train/tokens_per_second")
        if "eval/loss" in metrics:
            self._console.print(f"  step {global_step}: eval/loss {metrics['eval/loss']:.4f}")
        if loss is None:
            return
        if self._progress is not None and self._task is not None:
            told = "-" if speed is None else f"{speed:,.0f}"
            self._progress.update(self._task, completed=global_step, loss=f"{loss:.4f}", speed=told)
        elif global_step - self._told_at >= max(1, self._max_steps // 20) or global_step == self._max_steps:
            self._told_at = global_step
            told = "" if speed is None else f", {speed:,.0f} tokens/s"
            self._console.print(f"  step {global_step}/{self._max_steps}: loss {loss:.4f}{told}")

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"  [yellow]·[/] {escape(text)}")

    def stop_reason(self) -> str | None:
        """A person stops it by a signal."""
        return None


def show_result(console: Console, result: TrainResult) -> None:
    """The end of a run as a table."""
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    state = "succeeded before; --fresh trains anew" if result.was_done_before else result.state
    rows = [("run", result.run_id), ("state", state), ("steps", str(result.global_step))]
    for key in ("train/loss", "eval/loss", "train/tokens_per_second"):
        if key in result.metrics:
            rows.append((key, f"{result.metrics[key]:,.4g}"))
    if result.artifact is not None:
        rows += [("result", result.artifact), ("digest", result.digest or "")]
        rows.append(("try it", f'raytrain ask {result.run_id} "…"'))
    else:
        rows.append(("go on", "run the same command again"))
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", escape(value))
    console.print(table)

from __future__ import annotations

import io

import pytest
from rich.console import Console

from raytrain.cli.progress import ProgressView, show_result
from raytrain.training.observer import Silent
from raytrain.training.outcome import TrainResult

PLAN = {"run_id": "mine-[1]", "max_steps": 40, "global_step": 0, "num_rows": 1234, "num_trainable": 56789}


def follow(console: Console, *, quiet: bool = False) -> None:
    """A run as the trainer tells it, with a death in the middle."""
    with ProgressView(console, quiet=quiet) as view:
        view.phase("starting Ray", None)
        view.phase("starting Ray", 2.5)
        view.plan(**PLAN)
        for step in range(1, 21):
            view.metrics(step, {"train/loss": 1 / step, "train/tokens_per_second": 1500.0})
        view.note("a worker died [again]")
        view.plan(**{**PLAN, "global_step": 18})
        for step in range(19, 41):
            view.metrics(step, {"train/loss": 1 / step})
        view.metrics(40, {"eval/loss": 0.25})


def test_a_pipe_gets_a_line_now_and_then() -> None:
    stream = io.StringIO()
    follow(Console(file=stream, width=120))
    told = stream.getvalue()
    assert "✓ starting Ray 2.5 s" in told
    assert "mine-[1]: 40 steps over 1,234 rows, 56,789 trainable parameters" in told
    lines = [line for line in told.splitlines() if "loss" in line and "step" in line]
    assert 15 <= len(lines) <= 25
    assert "step 2/40: loss 0.5000, 1,500 tokens/s" in told
    assert "step 40/40: loss 0.0250" in told
    assert "step 40: eval/loss 0.2500" in told
    assert "a worker died [again]" in told


def test_a_terminal_gets_a_bar() -> None:
    stream = io.StringIO()
    follow(Console(file=stream, width=120, force_terminal=True))
    told = stream.getvalue()
    assert "40/40" in told
    assert "loss 0.0250" in told
    assert "tokens/s" in told


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    follow(Console(file=stream, width=120), quiet=True)
    follow(Console(file=stream, width=120, force_terminal=True), quiet=True)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            TrainResult("r-1", "succeeded", "/s/[x]", "sha256:d", 8, {"train/loss": 0.5, "eval/loss": 0.75}),
            ["r-1", "succeeded", "0.5", "0.75", "/s/[x]", 'raytrain ask r-1 "…"'],
        ),
        (
            TrainResult("r-1", "succeeded", "/s", "sha256:d", 8, was_done_before=True),
            ["succeeded before; --fresh trains anew"],
        ),
        (TrainResult("r-1", "cancelled", None, None, 3), ["cancelled", "run the same command again"]),
    ],
)
def test_the_end_as_a_table(result: TrainResult, expected: list[str]) -> None:
    stream = io.StringIO()
    show_result(Console(file=stream, width=120), result)
    for text in expected:
        assert text in stream.getvalue()


def test_silent_takes_everything() -> None:
    silent = Silent()
    silent.phase("x", 1.0)
    silent.plan(**PLAN)
    silent.metrics(1, {})
    silent.note("x")

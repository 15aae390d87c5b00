"""`raytrain` in a process that kills itself with -9 in the middle of one step of `raytrain run`, or in none:

python killed_in_a_step.py STEP [raytrain] run RECIPE …

In place of the check's many trainings, six minutes that a model of random weights would not pass, stands one finding;
what comes around them, the report among it, is as it is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raytrain.cli import run_recipe
from raytrain.cli.main import run
from raytrain.training.checks import pipeline
from raytrain.training.checks.verdict import Finding, Verdict


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledView(run_recipe.StepsView):
    """What the steps tell says where they are."""

    step = ""
    present = ""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.step == "train":
            self.training.metrics = self.trained  # type: ignore[method-assign]
        if self.step == "tune":
            self.tuning.trials = self.searched  # type: ignore[method-assign]

    def begin(self, name: str) -> None:
        super().begin(name)
        self.present = name
        if name == self.step == "compare":
            sys.addaudithook(lambda event, _: die() if event == "os.rename" else None)

    def prepared(self, progress: Any) -> None:
        if self.step == "prepare" and progress.phase != "cached":
            die()

    def trained(self, global_step: int, _metrics: dict[str, float]) -> None:
        if global_step >= 3:
            die()

    def searched(self, rows: Sequence[Any], *_: Any) -> None:
        """When a trial has ended and another goes on."""
        if {"complete", "running"} <= {row.view.state for row in rows}:
            die()

    def answered(self, progress: Any) -> None:
        if self.present == self.step and progress.num_done:
            die()


def checks(*_: Any) -> list[Verdict]:
    if KilledView.step == "check":
        die()
    return [Verdict("loss", "", (Finding("all of it", "passed", "as the test has it"),), "")]


if __name__ == "__main__":
    pipeline._run_all = checks
    KilledView.step = sys.argv[1]
    run_recipe.StepsView = KilledView  # type: ignore[misc]
    sys.path.append(str(Path.cwd()))
    sys.exit(run(sys.argv[3:]))
